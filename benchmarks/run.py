"""Measures this pipeline and its peers on the same records: `python -m benchmarks.run [--input PATTERN]`.

Every peer runs in a separate process, on a few and on many images, in several rounds. The sustained speed is the slope
between both runs, so start-up does not count. Ratios are computed within a round, and the table shows their medians:
so a slow hour of the machine matters less.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.measure import Measurement, PeerError, measure
from benchmarks.task import Task
from pipeline.core.cores import usable_cores
from pipeline.engines.base import ModuleFunction
from pipeline.engines.conversion import converted
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import choose_signature

DEFAULT_MODULE = "untrained:mobilenet_v2_050_160"


@dataclass(frozen=True)
class Contender:
    """A peer with options.

    Attributes:
      label: its name in the results.
      peer: module in `benchmarks.peers`.
      options: for the peer.
      reference: label of the limit that it is compared with.
      files: read image files rather than TFRecords.
    """

    label: str
    peer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "limit"
    files: bool = False


_FAST = {"decode": "fast", "precision": "bfloat16"}
CONTENDERS = (
    Contender("limit", "limit"),
    Contender("pipeline", "pipeline"),
    Contender("limit, fast", "limit", {"decode": "fast", "precision": "bf16"}, "limit, fast"),
    Contender("pipeline, fast", "pipeline", _FAST, "limit, fast"),
    Contender("pipeline, image files", "pipeline", files=True),
    Contender(
        "pipeline, 2 processes", "pipeline", {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
    ),
    Contender("pipeline, tensorflow", "pipeline", {"engine": "tensorflow"}),
    Contender("limit, batch 8", "limit", {"inference_batch": 8}),
    Contender("tf.data, frozen", "tfdata", {"frozen": True}),
    Contender("tf.data", "tfdata"),
    Contender("Beam RunInference", "beam_runinference"),
    Contender("tfx-bsl RunInference", "tfx_bsl_runinference"),
    Contender("Ray Data", "ray_data"),
)
RUN_INFERENCE = "Beam RunInference"


@dataclass(frozen=True)
class Round:
    """One peer's runs in one round, on a few and on many images."""

    small: Measurement
    large: Measurement

    @property
    def images_per_second(self) -> float:
        """Sustained speed; NaN if the large run took no longer than the small one."""
        seconds = self.large.seconds - self.small.seconds
        return (self.large.images - self.small.images) / seconds if seconds > 0 else math.nan

    @property
    def cpu_s_per_1000(self) -> float:
        """Processor seconds for 1000 more images."""
        return 1000 * (self.large.cpu_s - self.small.cpu_s) / (self.large.images - self.small.images)

    @property
    def startup_s(self) -> float:
        """Time of a run without the time for its images, in seconds."""
        return self.small.seconds - self.small.images / self.images_per_second


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--small", type=int, default=500, metavar="N", help="images of the small run. Default: 500")
    parser.add_argument("--large", type=int, default=2500, metavar="N", help="images of the large run. Default: 2500")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="LABEL",
        help=f"may be repeated; one of {', '.join(c.label for c in CONTENDERS)}",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for JSON and PNG")
    return parser


def prepare_task(handle: str) -> Task:
    """Resolves and converts a module, so that the measured runs find it in the cache."""
    module = resolve_module(handle)
    signature = choose_signature(module)
    converted(ModuleFunction(module.handle, module.path, module.sha256, signature))
    return Task(
        files=(),
        module=module.path,
        sha256=module.sha256,
        signature=signature.signature,
        input_key=signature.input_key,
        output_key=signature.output_key,
        height=signature.height,
        width=signature.width,
        tags=() if module.format == "tf1_hub" else ("serve",),
        output="",
        threads=usable_cores(),
    )


def run_once(contender: Contender, task: Task, images: int, scratch: Path) -> Measurement:
    """Runs a contender once, with an empty output directory."""
    output = scratch / "output"
    output.mkdir()
    options = dict(contender.options)
    if contender.files:
        options["input"] = [str(scratch / f"files-{images}")]
    else:
        task = dataclasses.replace(task, files=tuple(str(path) for path in sorted((scratch / f"{images}").iterdir())))
    try:
        return measure(contender.peer, dataclasses.replace(task, output=str(output), options=options), images)
    finally:
        shutil.rmtree(output, ignore_errors=True)


def run_rounds(
    contenders: Sequence[Contender], task: Task, sizes: tuple[int, int], rounds: int, scratch: Path
) -> dict[str, list[Round]]:
    """Runs all contenders in turn, `rounds` times; reports and drops a contender that fails."""
    found: dict[str, list[Round]] = {contender.label: [] for contender in contenders}
    for number in range(rounds):
        # Every other round runs in reverse order, so that no contender always follows the same one.
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            if contender.label not in found:
                continue
            try:
                runs = [run_once(contender, task, size, scratch) for size in sizes]
            except PeerError as error:
                del found[contender.label]
                print(f"{contender.label}: left out: {error}", file=sys.stderr)
                continue
            found[contender.label].append(Round(*runs))
            last = found[contender.label][-1]
            print(
                f"round {number + 1}: {contender.label}: {last.images_per_second:.0f} images/s; others kept "
                f"{last.large.other_cores:.1f} cores busy",
                file=sys.stderr,
            )
    return found


def summarize(found: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Returns one row of medians for each contender, over the rounds with a valid speed; None if there are none."""
    references = {contender.label: contender.reference for contender in CONTENDERS}
    rows = []
    for label, rounds in found.items():
        speeds = [item.images_per_second for item in rounds if not math.isnan(item.images_per_second)]
        rows.append(
            {
                "label": label,
                "images_per_second": _median(speeds),
                "slowest": min(speeds, default=None),
                "fastest": max(speeds, default=None),
                "startup_s": _median([item.startup_s for item in rounds]),
                "cpu_s_per_1000": _median([item.cpu_s_per_1000 for item in rounds]),
                "peak_mib": max(item.large.peak_mib for item in rounds),
                "of_limit": _ratio(rounds, found.get(references[label])),
                "of_run_inference": _ratio(rounds, found.get(RUN_INFERENCE)),
            }
        )
    return rows


def _ratio(rounds: Sequence[Round], others: Sequence[Round] | None) -> float | None:
    if not others:
        return None
    pairs = zip(rounds, others, strict=True)
    return _median([item.images_per_second / other.images_per_second for item, other in pairs])


def _median(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else None


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| | images/s (min-max) | of the limit | x RunInference | start-up s | CPU s / 1000 | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        speed, slowest, fastest = (_show(row[key], 0) for key in ("images_per_second", "slowest", "fastest"))
        limit, other, cpu = (_show(row[key], 2) for key in ("of_limit", "of_run_inference", "cpu_s_per_1000"))
        lines.append(
            f"| {row['label']} | {speed} ({slowest}-{fastest}) | {limit} | {other} | {_show(row['startup_s'], 1)} "
            f"| {cpu} | {row['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def _show(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws sustained speeds as bars, from the slowest to the fastest round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["images_per_second"] is not None]
    speeds = [row["images_per_second"] for row in rows]
    spread = [
        [row["images_per_second"] - row["slowest"] for row in rows],
        [row["fastest"] - row["images_per_second"] for row in rows],
    ]
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(rows) + 1.2))
    colours = ["tab:blue" if row["label"].startswith("pipeline") else "tab:gray" for row in rows]
    axes.barh([row["label"] for row in rows], speeds, xerr=spread, color=colours, ecolor="black", capsize=2)
    axes.invert_yaxis()
    axes.set_xlabel("images/s, sustained")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def describe_machine() -> dict[str, Any]:
    """Returns the hardware and software of the measurement."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return {"cpu": cpu, "cores": usable_cores(), "load": os.getloadavg()[0], "python": platform.python_version()}


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    unknown = set(options.only) - {contender.label for contender in CONTENDERS}
    if unknown or not 0 < options.small < options.large:
        print(f"unknown labels {sorted(unknown)}, or not 0 < --small < --large", file=sys.stderr)
        return 2
    contenders = [contender for contender in CONTENDERS if not options.only or contender.label in options.only]
    images = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    sizes = (options.small, options.large)
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            data.write_tfrecords(images, size, Path(scratch, f"{size}"))
            if any(contender.files for contender in contenders):
                data.write_files(images, size, Path(scratch, f"files-{size}"))
        found = run_rounds(contenders, task, sizes, options.rounds, Path(scratch))
    rows = summarize(found)
    machine = describe_machine()
    print(format_table(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine,
        "module": options.module,
        "images": {"distinct": len(images), "mean_bytes": sum(map(len, images)) / len(images), "runs": sizes},
        "rows": rows,
        "rounds": {label: [dataclasses.asdict(item) for item in rounds] for label, rounds in found.items()},
    }
    (options.output / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, options.output / "benchmark.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
