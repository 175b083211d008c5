"""Runs that are killed, that meet a failing disk and that read damaged files: nothing is lost, nothing done twice."""

import errno
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.beam import read
from pipeline.core.errors import PipelineError
from pipeline.dataset.metadata import live, read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.tables import read_entries
from pipeline.dataset.verify import verify
from pipeline.storage import filesystem
from pipeline.testing import make_example, make_tfrecord, png_bytes
from pipeline.tfrecords.tfrecord import read_records
from tests.datasets import contents, embed, make_photos, read_rows, read_vectors
from tests.forked_runs import ForkedRun, ForkServer, fork_server

pytestmark = pytest.mark.slow

KILLS = 30
IMAGES = 100


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with fork_server() as made:
        yield made


def arguments(photos: Path, output: Path, module: Path, *flags: str) -> list[str]:
    # OpenVINO starts in a second where TensorFlow takes four.
    return [
        f"--input={photos}",
        f"--output={output}",
        f"--module={module}",
        "--engine=openvino",
        "--wave_bytes=1",
        *flags,
    ]


def command(photos: Path, output: Path, module: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.run", *arguments(photos, output, module, *flags)]


def names(directory: Path) -> frozenset[str]:
    return frozenset(f"{folder}/{name}" for folder, _, files in os.walk(directory) for name in files)


def anywhere(files: frozenset[str]) -> bool:
    return True


def while_rows_are_staged(files: frozenset[str]) -> bool:
    return any(re.search(r"/staging/[0-9a-f]{32}/\d+/embeddings-", path) for path in files)


def before_named_rows_count(files: frozenset[str]) -> bool:
    waves = {found[1] for path in files if (found := re.search(r"/embeddings/embeddings-(\d+)-", path))}
    return bool(waves - {Path(path).stem for path in files if re.search(r"/manifests/\d+\.json$", path)})


def run_and_kill(run: ForkedRun, output: Path, events: int, moment: Callable[[frozenset[str]], bool] = anywhere) -> int:
    """Kills a run at a moment after so many changes of the data set's files were seen; returns its exit code."""
    before = names(output)
    while run.is_running:
        now = names(output)
        events -= now != before
        before = now
        if events <= 0 and moment(now):
            run.stop()
            if moment(names(output)):  # still
                break
            run.send(signal.SIGCONT)
    run.send(signal.SIGKILL)
    return run.wait()


def finish(server: ForkServer, arguments: list[str]) -> str:
    done = server.run(*arguments)
    assert done.code == 0, done.stderr
    return done.stdout


def test_a_run_that_is_killed_thirty_times_ends_like_one_that_is_not(server, tmp_path, tiny_module):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, IMAGES)
    (photos / "bad.jpg").write_bytes(b"bad")
    finish(server, arguments(photos, tmp_path / "expected", tiny_module, "--wave_bytes=1GiB"))
    expected = read_vectors(tmp_path / "expected")
    assert len(expected) == IMAGES

    rng = np.random.default_rng(20240517)
    committed: dict[str, bytes] = {}
    left = set()
    for moment in (anywhere, while_rows_are_staged, before_named_rows_count) * (KILLS // 3):
        run = server.start(*arguments(photos, output, tiny_module))
        assert run_and_kill(run, output, int(rng.integers(1, 30)), moment) == -signal.SIGKILL
        files = contents(output)
        assert {name: files[name] for name in committed} == committed
        report = verify(str(output)) if "spec.json" in files else None
        if report is not None:
            assert report.problems == ()
            left |= {
                re.sub(r"[0-9a-f]{32}|\d{5}", "", Path(path).relative_to(output).as_posix()) for path in report.strays
            }
        owned = [f"manifests/{manifest.wave}.json" for manifest in read_manifests(str(output))]
        owned += [
            entry.path
            for manifest in read_manifests(str(output))
            for entry in (*manifest.outputs, *manifest.inputs, *manifest.retried)
        ]
        committed = {name: files[name] for name in owned}
    # Some kills came while files were written, some between their naming and the manifest.
    assert "staging///embeddings-" in left
    assert "embeddings/embeddings---of-.tfrecord" in left

    done = len(live(read_manifests(str(output))))
    assert 0 < done < IMAGES + 1
    finish(server, arguments(photos, output, tiny_module))
    assert read_vectors(output) == expected
    assert [failure.key for failure in read_failures(str(output))] == [b"bad.jpg"]
    manifests = read_manifests(str(output))
    assert sum(manifest.embedded for manifest in manifests) == IMAGES
    assert sum(manifest.failed for manifest in manifests) == 1
    paths = [entry.path for manifest in manifests for entry in read_entries(str(output), manifest)]
    assert len(paths) == len(set(paths)) == IMAGES + 1
    report = verify(str(output))
    assert (report.rows, report.superseded, report.problems, report.strays) == (IMAGES, 0, (), ())
    summary = json.loads((output / "summary.json").read_text())
    assert summary["records"] == summary["embedded"] + summary["failed"] == IMAGES + 1 - summary["skipped"]
    assert sorted(path.name for path in output.iterdir()) == [
        "embeddings",
        "failures",
        "manifests",
        "schema.pbtxt",
        "spec.json",
        "summary.json",
    ]


class Disk:
    """Stands before the functions that write, and lets one call fail: opening, writing, closing or renaming."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.number = number
        self.calls = 0
        self.fails_at = -1
        for name in ("create", "rename_all", "close_durably"):
            monkeypatch.setattr(filesystem, name, self.wrap(getattr(filesystem, name)))

    def check(self, path: object = None) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError(self.number, os.strerror(self.number), path)

    def wrap(self, function):
        def call(*args):
            self.check(args[0] if isinstance(args[0], str) else None)
            result = function(*args)
            return FailingFile(result, self) if function.__name__ == "create" else result

        return call


class FailingFile(io.RawIOBase):
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def writable(self):
        return True

    def write(self, data):
        self._disk.check()
        return self._file.write(data)

    def flush(self):
        if not self.closed and not self._file.closed:
            self._file.flush()

    def fileno(self):
        return self._file.fileno()

    def close(self):
        super().close()
        self._file.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_each_of_its_calls_in_turn(tmp_path, tiny_module, monkeypatch, number):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 24)
    (photos / "bad.jpg").write_bytes(b"bad")
    flags = {"output_format": "tfrecord,parquet", "wave_bytes": "1"}
    embed(photos, tmp_path / "expected", tiny_module, **flags)
    expected = read_vectors(tmp_path / "expected")

    committed: dict[str, bytes] = {}
    errors: list[Exception] = []
    for fails_at in itertools.count(1):
        with monkeypatch.context() as patch:
            disk = Disk(patch, number)
            disk.fails_at = fails_at
            try:
                embed(photos, output, tiny_module, **flags)
            except (PipelineError, OSError) as error:
                errors.append(error)
        files = contents(output) if output.exists() else {}
        assert {name: files[name] for name in committed} == committed
        for manifest in read_manifests(str(output)):
            entries = (*manifest.outputs, *manifest.inputs)
            committed.update({entry.path: files[entry.path] for entry in entries})
        assert "lock.json" not in files
        if disk.calls < fails_at:
            break
    # A failure that only a renewal or the lock's removal met is logged; all others end the run.
    assert {"OutputError", "PipelineError"} <= {type(error).__name__ for error in errors}
    assert all(os.strerror(number) in str(error) and "\n" not in str(error) for error in errors)
    embed(photos, output, tiny_module, **flags)
    assert read_vectors(output) == expected
    assert sum(manifest.embedded for manifest in read_manifests(str(output))) == 24
    report = verify(str(output))
    assert (report.rows, report.failures, report.superseded, report.problems, report.strays) == (24, 1, 0, (), ())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("tfrecord", "wave 00000 failed and was not committed: "),
        ("images", r"/\S*/embedding-pipeline-\w+/\w+\.parquet: "),
    ],
)
def test_a_real_limit_on_what_may_be_written(server, tmp_path, tiny_module, kind, text):
    """The kernel refuses to write files of more than 4 KiB, as a quota or a full disk would.

    From a TFRecord, the first such file holds embeddings; from images, it is the table that lists them.
    """
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 120)
    if kind == "tfrecord":
        images = [path.read_bytes() for path in sorted(photos.iterdir())]
        photos = tmp_path / "a.tfrecord"
        photos.write_bytes(make_tfrecord(make_example({"image/encoded": image}) for image in images))
    finish(server, arguments(photos, tmp_path / "expected", tiny_module, "--wave_bytes=1GiB"))
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", *command(photos, output, tiny_module, "--wave_bytes=1GiB")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert limited.returncode == 1, limited.stderr
    last = limited.stderr.splitlines()[-1]
    assert re.match(f"error: {text}", last)
    assert "File too large" in last
    assert "Traceback" not in limited.stderr
    assert read_manifests(str(output)) == ()
    finish(server, arguments(photos, output, tiny_module, "--wave_bytes=1GiB"))
    assert read_vectors(output) == read_vectors(tmp_path / "expected")
    report = verify(str(output))
    assert (report.problems, report.strays) == ((), ())


def start_and_wait_for_waves(arguments: list[str], output: Path, waves: int) -> subprocess.Popen:
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(output.glob("manifests/*.json"))) < waves:
        time.sleep(0.001)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order(server, tmp_path, tiny_module, number):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 60)
    process = start_and_wait_for_waves(command(photos, output, tiny_module), output, 3)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == 130
    assert error.splitlines()[-1] == (
        "error: interrupted; committed work is kept: start the same command again to continue"
    )
    assert "Traceback" not in error
    assert not (output / "lock.json").exists()
    done = len(read_manifests(str(output)))
    assert 3 <= done < 60
    assert verify(str(output)).problems == ()
    assert f"; {done} were done by earlier runs" in finish(server, arguments(photos, output, tiny_module))
    assert len(read_rows(output)) == 60
    assert verify(str(output)).strays == ()


def test_a_second_signal_ends_it_at_once(server, tmp_path, tiny_module):
    photos, output = tmp_path / "photos", tmp_path / "out"
    make_photos(photos, 60)
    process = start_and_wait_for_waves(command(photos, output, tiny_module), output, 3)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    finish(server, arguments(photos, output, tiny_module))  # a lock that was left is that of a process that is gone
    assert len(read_rows(output)) == 60
    assert verify(str(output)).problems == ()


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_file_that_four_workers_read(tmp_path, tiny_module, monkeypatch, seed):
    """Every record that no damage touches is embedded once, and the failures name the damaged bytes."""
    monkeypatch.setattr(read, "PART_BYTES", 200_000)
    rng = np.random.default_rng(seed)
    images = [png_bytes(int(rng.integers(20, 120)), 60, seed=index) for index in range(300)]
    path = tmp_path / "a.tfrecord"
    data = bytearray(make_tfrecord(make_example({"image/encoded": image}) for image in images))
    with io.BytesIO(data) as file:
        records = [(item.offset, item.stop) for item in read_records(file)]
    damage = []
    for _ in range(20):
        start = int(rng.integers(0, len(data) - 10_000))
        stop = start + int(rng.integers(1, 10_001))
        data[start:stop] = rng.bytes(stop - start)
        damage.append((start, stop))
    path.write_bytes(data)
    workers = {"direct_num_workers": 4, "direct_running_mode": "multi_threading"}
    summary = embed(path, tmp_path / "out", tiny_module, **workers)
    untouched = {
        f"a.tfrecord@{first}".encode()
        for first, last in records
        if all(last <= start or stop <= first for start, stop in damage)
    }
    rows = read_rows(tmp_path / "out")
    assert untouched <= rows.keys()
    assert summary.embedded == len(rows)
    # A byte may be overwritten by itself: what was read beside the untouched has the bytes that it had.
    assert rows.keys() <= {f"a.tfrecord@{first}".encode() for first, _ in records}
    named = []
    for failure in read_failures(str(tmp_path / "out")):
        match = re.fullmatch(rf"{path}@(\d+)-(\d+)", failure.source)
        assert failure.reason == "corrupt_record"
        named.append((int(match[1]), int(match[2])))
    for start, stop in damage:
        touched = [(first, last) for first, last in records if first < stop and start < last]
        for first, last in touched:
            assert f"a.tfrecord@{first}".encode() in rows or any(a <= first and last <= b for a, b in named)
    assert all(any(start < b and a < stop for start, stop in damage) for a, b in named)


class Snapshots:
    """Copies the data set before each change of the disk: what a kill at that moment would leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, output: Path, copies: Path) -> None:
        self.output, self.copies = output, copies
        self.steps: list[str] = []
        for name in ("create", "close_durably", "rename_all", "delete", "delete_directory"):
            monkeypatch.setattr(filesystem, name, self.wrap(getattr(filesystem, name)))

    def wrap(self, function):
        def call(first, *others):
            items = list(first) if function.__name__ in ("rename_all", "delete") else [first]
            given = items if function.__name__ in ("rename_all", "delete") else first
            paths = [getattr(item, "target", getattr(item, "name", item)) for item in items]
            label = re.sub(r"[0-9a-f]{32}", "*", os.path.relpath(str(paths[0]), self.output)) if paths else ""
            if not paths or label.startswith("lock.json"):  # nothing changes, or only the lock itself
                return function(given, *others)
            if self.output.exists():
                shutil.copytree(self.output, self.copies / str(len(self.steps)))
            self.steps.append(f"{function.__name__} {label}")
            return function(given, *others)

        return call


def bury_holder(output: Path) -> None:
    """Makes the lock in a copy that of a process that is gone, as the killed one's would be."""
    if (output / "lock.json").exists():
        fields = json.loads((output / "lock.json").read_text())
        (output / "lock.json").write_text(json.dumps({**fields, "process_started": "1"}))


WAVE = (
    "create staging/*/{0}/plan-00000.parquet",
    "close_durably staging/*/{0}/plan-00000.parquet",
    "create staging/*/{0}/embeddings-*",
    "close_durably staging/*/{0}/embeddings-*",
    "create staging/*/{0}/inputs-*",
    "close_durably staging/*/{0}/inputs-*",
    "rename_all manifests/{0}-inputs-00000.parquet",
    "rename_all embeddings/embeddings-{0}-00000-of-00001.tfrecord",
    "create staging/*/*-manifests-{0}.json",
    "close_durably staging/*/*-manifests-{0}.json",
    "rename_all manifests/{0}.json",
    "delete_directory staging/*/{0}",
)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_before_any_change_of_the_disk(tmp_path, tiny_module, monkeypatch, overwrite):
    photos, output, copies = tmp_path / "photos", tmp_path / "out", tmp_path / "copies"
    make_photos(photos, 2)
    embed(photos, tmp_path / "expected", tiny_module)
    expected = read_vectors(tmp_path / "expected")
    if overwrite:
        embed(photos, output, tiny_module, wave_bytes="1")
    with monkeypatch.context() as patch:
        snapshots = Snapshots(patch, output, copies)
        embed(photos, output, tiny_module, wave_bytes="1", overwrite=overwrite)
    steps = snapshots.steps
    for wave in ("00003", "00004") if overwrite else ("00000", "00001"):
        positions = [steps.index(step.format(wave)) for step in WAVE]
        assert positions == sorted(positions)
        assert positions[-1] == positions[-2] + 1
    assert steps[-2:] == ["rename_all summary.json", "delete_directory staging/*"]

    for index, step in enumerate(steps):
        copy = copies / str(index)
        if not copy.exists():
            continue
        bury_holder(copy)
        if (copy / "spec.json").exists():
            assert verify(str(copy)).problems == (), step
        counting = live(read_manifests(str(copy)))
        owned = [f"manifests/{manifest.wave}.json" for manifest in counting]
        owned += [entry.path for manifest in counting for entry in (*manifest.outputs, *manifest.inputs)]
        committed = {name: data for name, data in contents(copy).items() if name in owned}
        summary = embed(photos, copy, tiny_module, wave_bytes="1")
        assert summary.skipped + summary.records == 2, step
        assert summary.skipped == len(counting), step
        assert committed.items() <= contents(copy).items(), step
        assert read_vectors(copy) == expected, step
        assert [manifest.embedded for manifest in live(read_manifests(str(copy)))] == [1, 1], step
        after = verify(str(copy))
        assert (after.problems, after.strays) == ((), ()), step
        assert not (copy / "lock.json").exists()
