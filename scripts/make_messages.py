"""Writes the outputs in docs/messages.md: runs the command in each situation and keeps what it prints.

Each block of the page that follows a line `<!-- NAME -->` is replaced by the output of the scenario NAME. Each run is a
fork of this process, which has imported everything. Seconds, speeds, digests and paths become fixed ones.

Usage: python scripts/make_messages.py [FILE]

Without FILE, replaces docs/messages.md itself.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.beam import write
from pipeline.commands.run import main as run
from pipeline.job.progress import Progress
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.testing import jpeg_bytes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "messages.md"
BLOCK = re.compile(r"(<!-- ([\w ]+) -->\n\n```console\n).*?(```\n)", re.DOTALL)
PHOTOS = 40
DEFAULTS = ("--input=photos", "--module=module", "--output=embeddings")


@dataclass(frozen=True)
class Scenario:
    """A command in a situation.

    Attributes:
      name: as the page has it.
      code: the exit code that is expected.
      flags: of the command.
      prepare: changes the folder before the run, and this process, which is the run's own.
      last_line_only: whether other lines are those of workers, which have logs of their own.
    """

    name: str
    code: int
    flags: tuple[str, ...] = DEFAULTS
    prepare: Callable[[], object] = lambda: None
    last_line_only: bool = False


def break_photos(truncated: int, empty: int) -> None:
    """Cuts off the end of some photos, and empties others."""
    photos = sorted(Path("photos").iterdir())
    for path in photos[:truncated]:
        path.write_bytes(path.read_bytes()[:-300])
    for path in photos[truncated : truncated + empty]:
        path.write_bytes(b"")


def interrupt_second_wave() -> None:
    """Sends SIGINT, as Ctrl-C does, when the second wave begins."""
    begin = Progress.begin_wave

    def begin_wave(progress: Progress) -> None:
        begin(progress)
        if progress.status.wave == 2:
            os.kill(os.getpid(), signal.SIGINT)

    Progress.begin_wave = begin_wave


def fill_disk() -> None:
    """Lets the files of vectors meet a full disk."""
    create = filesystem.create

    def create_unless_full(path: str, *args: object) -> object:
        if "/embeddings-" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return create(path, *args)

    filesystem.create = create_unless_full


def exhaust_workers() -> None:
    """Lets the last step of a job end as on a worker without memory."""

    def commit_wave(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 2.00 GiB")

    write.commit_wave = commit_wave


REMOTE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK", "--temp_location=temp")
SCENARIOS = (
    Scenario("first run", 0),
    Scenario("nothing to do", 0),
    Scenario("interrupted", 130, (*DEFAULTS[:2], "--output=more", "--wave_bytes=20kB"), interrupt_second_wave),
    Scenario("resumed", 0, (*DEFAULTS[:2], "--output=more", "--wave_bytes=20kB")),
    Scenario("lock taken", 2, prepare=lambda: DatasetLock("embeddings").__enter__()),
    Scenario("no input", 2, ("--input=fotos", *DEFAULTS[1:])),
    Scenario("wrong module", 2, (DEFAULTS[0], "--module=photos", DEFAULTS[2])),
    Scenario("another module", 2, (*DEFAULTS, "--normalize=l2")),
    Scenario("mistyped", 2, (*DEFAULTS[:2], "--ouput=embeddings")),
    Scenario("disk full", 1, (*DEFAULTS[:2], "--output=full"), fill_disk),
    Scenario("remote job failed", 1, (*DEFAULTS[:2], "--output=remote", *REMOTE), exhaust_workers, last_line_only=True),
    Scenario("some failures", 0, (*DEFAULTS[:2], "--output=some"), lambda: break_photos(1, 1)),
    Scenario("many failures", 3, (*DEFAULTS[:2], "--output=many"), lambda: break_photos(2, 6)),
)


def make_outputs(folder: Path, module: Path) -> Iterator[tuple[str, str]]:
    """Yields the name of each scenario, and its command with what it printed.

    Args:
      folder: empty; the runs happen there.
      module: a small module.
    """
    (folder / "photos").mkdir()
    for index in range(PHOTOS):
        (folder / f"photos/{index:03d}.jpg").write_bytes(jpeg_bytes(48, 64, seed=index))
    (folder / "module").symlink_to(module)
    for scenario in SCENARIOS:
        log = folder / "log"
        code = _run(scenario, folder, log)
        text = normalize(log.read_text(), folder)
        if code != scenario.code:
            raise RuntimeError(f"'{scenario.name}' ended with {code}: {text}")
        if scenario.last_line_only:
            text = text.splitlines()[-1] + "\n"
        command = " ".join(map(shlex.quote, scenario.flags))
        yield scenario.name, f"$ python -m pipeline.run {command}\n{text}"


def _run(scenario: Scenario, folder: Path, log: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.chdir(folder)
            file = log.open("w", buffering=1)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            scenario.prepare()
            code = run(list(scenario.flags))
            file.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def normalize(text: str, folder: Path) -> str:
    """Returns the output of a command with fixed times, speeds, digests, hosts and paths.

    Args:
      text: the output.
      folder: where the command ran; becomes `/home/you`.
    """
    text = text.replace(str(folder.resolve()), "/home/you").replace(str(folder), "/home/you")
    text = re.sub(r"\S+ -m pipeline", "python -m pipeline", text)
    for pattern, fixed in (
        (r"in \d+\.\d s \(\d+ images/s\)", "in 2.0 s (20 images/s)"),
        (r"in \d+\.\d s\b", "in 2.0 s"),
        (r"\(([0-9a-f]{12})\)", "(0123456789ab)"),
        (r"[0-9a-f]{32}", "0123456789abcdef0123456789abcdef"),
        (r"(process|pid) \d+", r"\1 4711"),
        (rf" on {re.escape(socket.gethostname())}\b", " on HOST"),
        (r"such as 00\d\.jpg", "such as 000.jpg"),  # threads come to an end in any order
        (r"lease of \d+ s", "lease of 60 s"),
        (r"staging/(\w+)/(\d+)/\S+?/embeddings-\S+?(?=:)", r"staging/\1/\2/embeddings"),
    ):
        text = re.sub(pattern, fixed, text)
    return text


def fill(page: str, outputs: dict[str, str]) -> str:
    """Returns a page with the output of each scenario in its block."""
    return BLOCK.sub(lambda found: f"{found[1]}{outputs[found[2]]}{found[3]}", page)


def main(target: Path) -> None:
    """Writes the page with new outputs to a file."""
    from pipeline.core.quiet import import_tensorflow
    from pipeline.testing import write_tiny_module

    with tempfile.TemporaryDirectory() as name:
        os.environ["TFHUB_CACHE_DIR"] = f"{name}/cache"
        module, folder = Path(name, "tiny"), Path(name, "folder")
        if not (pid := os.fork()):  # the runs are forks of a process without TensorFlow's threads
            import_tensorflow()
            write_tiny_module(module, format="tf2")
            os._exit(0)
        os.waitpid(pid, 0)
        folder.mkdir()
        target.write_text(fill(PAGE.read_text(), dict(make_outputs(folder, module))))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
