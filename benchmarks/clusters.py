"""One and two SDK workers on each engine, on the same photos: `python -m benchmarks.clusters [--engine flink]`.

The program starts each cluster on this machine with `scripts/cluster.sh`, and stops it after its jobs. The DirectRunner
with the same number of worker processes runs beside them. Every round runs all jobs, each on a few and on many photos:
the slope is the sustained speed, and the rest is the fixed cost of a job. All workers share the cores of this machine,
so the table shows the cost of an engine, not the gain from more machines.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks import data
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task

DIRECT = "direct"
PORTS = {
    "flink": ("FLINK_JOB_PORT", "FLINK_RPC_PORT", "FLINK_REST_PORT"),
    "spark": ("SPARK_JOB_PORT", "SPARK_MASTER_PORT", "SPARK_WEB_PORT"),
    "prism": ("PRISM_JOB_PORT",),
}
"""The variables of `scripts/cluster.sh` for the ports of an engine; the first port takes jobs."""
_POLL_S = 0.05


class JobError(Exception):
    """A job or a cluster failed."""


@dataclass(frozen=True)
class Case:
    """A runner with a number of SDK workers.

    Attributes:
      engine: argument of `scripts/cluster.sh`; `direct` needs no cluster.
      workers: number of SDK workers.
      flags: of `pipeline.run`.
      environment: variables for `scripts/cluster.sh`.
    """

    engine: str
    workers: int
    flags: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.engine}, {self.workers} SDK workers"


_DIRECT_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
CASES = (
    Case(DIRECT, 1, ["--runner=DirectRunner"]),
    Case(DIRECT, 2, ["--runner=DirectRunner", *_DIRECT_PROCESSES]),
    Case("flink", 1, ["--config=configs/flink.yaml", "--parallelism=1"]),
    Case("flink", 2, ["--config=configs/flink.yaml"]),
    # Spark deals a job out to all cores that its driver may take; each worker of the cluster has one.
    Case("spark", 1, ["--config=configs/spark.yaml"], {"JAVA_TOOL_OPTIONS": "-Dspark.cores.max=1"}),
    Case("spark", 2, ["--config=configs/spark.yaml"]),
    # Prism starts one SDK worker for a job.
    Case("prism", 1, ["--config=configs/prism.yaml"]),
)


@dataclass(frozen=True)
class Job:
    """One run of the command.

    Attributes:
      images: number of embedded photos.
      seconds: from the start of the command to its end.
      first_row_s: from the start of the command to the first row in a file.
      load: the machine's load average of one minute at the start.
    """

    images: int
    seconds: float
    first_row_s: float
    load: float


@dataclass(frozen=True)
class Round:
    """The jobs of an engine with a number of workers in one round, on a few and on many photos."""

    small: Job
    large: Job

    @property
    def images_per_second(self) -> float:
        """Sustained speed; NaN if the large job took no longer than the small one."""
        seconds = self.large.seconds - self.small.seconds
        return (self.large.images - self.small.images) / seconds if seconds > 0 else math.nan

    @property
    def fixed_s(self) -> float:
        """Time of a job without the time for its photos, in seconds."""
        return self.small.seconds - self.small.images / self.images_per_second


Results = dict[tuple[str, int], list[Round]]
"""The rounds of each engine and number of SDK workers."""


def run_job(flags: Sequence[str], images: int, output: Path) -> Job:
    """Runs `pipeline.run` with some flags and waits for its end.

    Raises:
      JobError: the command failed, or did not embed all photos.
    """
    load, started = os.getloadavg()[0], time.monotonic()
    command = [sys.executable, "-m", "pipeline.run", f"--output={output}", *flags]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        first_row_s = math.nan
        while process.poll() is None:
            if math.isnan(first_row_s) and has_rows(output):
                first_row_s = time.monotonic() - started
            time.sleep(_POLL_S)
        seconds = time.monotonic() - started
        if process.returncode:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise JobError(f"exit code {process.returncode}: {lines[-1]}")
    embedded = json.loads((output / "summary.json").read_text())["embedded"]
    if embedded != images:
        raise JobError(f"{embedded} of {images} photos were embedded")
    return Job(images, seconds, first_row_s, load)


def has_rows(output: Path) -> bool:
    """Returns whether a worker has begun to write rows: it creates a file when the first rows arrive."""
    return any(next(output.glob(pattern), None) for pattern in ("staging/**/embeddings-*", "embeddings/*"))


@contextmanager
def cluster(case: Case, home: Path) -> Iterator[Sequence[str]]:
    """Starts the cluster of a case on free ports, yields the flags that name it, and stops it at the end.

    Args:
      case: names the engine.
      home: directory for the state and logs of the cluster.

    Raises:
      JobError: the cluster does not start or stop.
    """
    if case.engine == DIRECT:
        yield ()
        return
    ports = free_ports(len(PORTS[case.engine]))
    environment = {"CLUSTERS": str(home), **dict(zip(PORTS[case.engine], map(str, ports), strict=True))}
    _control(case, "up", environment)
    try:
        yield (f"--job_endpoint=localhost:{ports[0]}", f"--temp_location={home / 'temp'}")
    finally:
        _control(case, "down", environment)


def _control(case: Case, action: str, environment: Mapping[str, str]) -> None:
    command = ["scripts/cluster.sh", case.engine, action]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **environment, **case.environment})
    except (OSError, subprocess.CalledProcessError) as error:
        raise JobError(f"{' '.join(command)} failed: {error}") from error


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that no program listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def run_round(case: Case, sizes: Mapping[int, Sequence[str]], scratch: Path) -> Round:
    """Runs the jobs of a case in one round, on a cluster that has run a job before.

    Args:
      case: what to run.
      sizes: the number of photos of both jobs, and the flags that name these photos.
      scratch: directory for the output.
    """

    def run(images: int, endpoint: Sequence[str]) -> Job:
        output = scratch / "output"
        try:
            return run_job([*case.flags, *endpoint, *sizes[images]], images, output)
        finally:
            shutil.rmtree(output, ignore_errors=True)

    with cluster(case, scratch / "clusters") as endpoint:
        if case.engine != DIRECT:
            run(min(sizes), endpoint)
        return Round(*(run(images, endpoint) for images in sizes))


def run_rounds(cases: Sequence[Case], sizes: Mapping[int, Sequence[str]], rounds: int, scratch: Path) -> Results:
    """Runs all cases in turn, `rounds` times; reports and drops a case that fails."""
    found: Results = {(case.engine, case.workers): [] for case in cases}
    for number in range(rounds):
        for case in cases:
            if (case.engine, case.workers) not in found:
                continue
            try:
                last = run_round(case, sizes, scratch)
            except JobError as error:
                del found[case.engine, case.workers]
                print(f"{case}: left out: {error}", file=sys.stderr)
                continue
            found[case.engine, case.workers].append(last)
            print(
                f"round {number + 1}: {case}: {last.images_per_second:.0f} images/s, fixed cost {last.fixed_s:.1f} s; "
                f"load {last.large.load:.1f}",
                file=sys.stderr,
            )
    return found


def format_table(found: Results) -> str:
    """Returns a Markdown table of the medians of each case; ratios are within a round."""
    lines = [
        "| engine | SDK workers | images/s (min-max) | of the DirectRunner | first row, s | fixed cost, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (engine, workers), rounds in found.items():
        speeds = [item.images_per_second for item in rounds if not math.isnan(item.images_per_second)]
        pairs = zip(rounds, found.get((DIRECT, workers), ()), strict=False)
        ratio = _median([item.images_per_second / direct.images_per_second for item, direct in pairs], 2)
        spread = f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f})" if speeds else ""
        first_row = _median([job.first_row_s for item in rounds for job in (item.small, item.large)])
        fixed = _median([item.fixed_s for item in rounds])
        lines.append(f"| {engine} | {workers} | {spread} | {ratio} | {first_row} | {fixed} |")
    return "\n".join(lines)


def _median(values: Sequence[float], digits: int = 1) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{statistics.median(known):.{digits}f}" if known else ""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument(
        "--engine", action="append", default=[], choices=sorted({case.engine for case in CASES}), help="default: all"
    )
    parser.add_argument("--small", type=int, default=500, metavar="N", help="photos of the small job. Default: 500")
    parser.add_argument("--images", type=int, default=4000, metavar="N", help="photos of the large job. Default: 4000")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    if not 0 < options.small < options.images or options.rounds < 1:
        print("expected 0 < --small < --images and 1 <= --rounds", file=sys.stderr)
        return 2
    images = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    cases = [case for case in CASES if not options.engine or case.engine in options.engine]
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {}
        for size in (options.small, options.images):
            files = data.write_tfrecords(images, size, Path(scratch, f"{size}"))
            inputs = [f"--input={file}" for file in files]
            sizes[size] = [*inputs, f"--module={task.module}", "--key_feature=id"]
        found = run_rounds(cases, sizes, options.rounds, Path(scratch))
    print(format_table(found))
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": describe_machine(),
        "apache-beam": metadata.version("apache-beam"),
        "module": options.module,
        "images": {"distinct": len(images), "runs": list(sizes)},
        "cases": [
            {"engine": engine, "workers": workers, "rounds": [dataclasses.asdict(item) for item in rounds]}
            for (engine, workers), rounds in found.items()
        ],
    }
    (options.output / "clusters.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
