"""Measures the speed and memory of each kind of input: `python -m benchmarks.inputs [--input PATTERN] [--large]`.

The same images as TFRecords, tar archives and Parquet files, on the DirectRunner: sustained speeds and, within a round,
their ratios to TFRecords. With `--large`, the peak memory on one tar of 2 GB and on one Parquet file of 1 GB with a
single row group, beside that on inputs of a hundredth of the size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.contenders import Contender
from benchmarks.measure import Measurement, Round
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, input_directory, prepare_task, run_once, run_rounds, write_images
from benchmarks.task import Task

BASELINE = "TFRecord"
KINDS = (
    Contender(BASELINE, "pipeline"),
    Contender("tar", "pipeline", {"key_feature": "txt"}, form="tar"),
    Contender("Parquet", "pipeline", form="parquet"),
)
LARGE_BYTES = {"tar": 2 << 30, "parquet": 1 << 30}
SMALL_SHARE = 100


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inputs", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--sizes", type=int, nargs=2, default=(500, 2500), metavar="N", help="default: 500 2500")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--large", action="store_true", help="measure the memory on large files instead")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def format_speeds(rounds: Mapping[str, Sequence[Round]]) -> str:
    """Returns the speeds as a Markdown table: medians over the rounds."""
    lines = ["| input | images/s | of TFRecord | CPU s / 1000 | peak MiB |", "| --- | --- | --- | --- | --- |"]
    for label, own in rounds.items():
        ratios = [
            one.images_per_second / base.images_per_second for one, base in zip(own, rounds[BASELINE], strict=True)
        ]
        lines.append(
            f"| {label} | {statistics.median(one.images_per_second for one in own):.0f} "
            f"| {statistics.median(ratios):.2f} | {statistics.median(one.cpu_s_per_1000 for one in own):.2f} "
            f"| {max(one.large.peak_mib for one in own):.0f} |"
        )
    return "\n".join(lines)


def format_memory(found: Mapping[str, tuple[Measurement, Measurement]]) -> str:
    """Returns the memory on a small and on a large file of each kind as a Markdown table."""
    lines = ["| input | images | peak MiB | images | peak MiB | ratio |", "| --- | --- | --- | --- | --- | --- |"]
    for label, (small, large) in found.items():
        lines.append(
            f"| {label} | {small.images} | {small.peak_mib:.0f} | {large.images} | {large.peak_mib:.0f} "
            f"| {large.peak_mib / small.peak_mib:.2f} |"
        )
    return "\n".join(lines)


def write_large(images: Sequence[bytes], form: str, size_bytes: int, scratch: Path) -> int:
    """Writes one file of about `size_bytes`, where `run_once` finds it; returns the number of its images."""
    count = max(1, size_bytes * len(images) // sum(map(len, images)))
    directory = input_directory(scratch, form, count)
    if form == "tar":
        data.write_tars(images, count, directory, files=1)
    else:
        data.write_parquet(images, count, directory, files=1, row_group=count)
    return count


def measure_memory(
    images: Sequence[bytes], module: str, large: Mapping[str, int]
) -> dict[str, tuple[Measurement, ...]]:
    """Returns the measurements on a small and on a large file of each kind."""
    task, found = prepare_task(module), {}
    for contender in KINDS:
        if contender.form not in large:
            continue
        small, whole = (
            _measure_file(contender, images, task, size_bytes)
            for size_bytes in (large[contender.form] // SMALL_SHARE, large[contender.form])
        )
        found[contender.label] = small, whole
    return found


def _measure_file(contender: Contender, images: Sequence[bytes], task: Task, size_bytes: int) -> Measurement:
    with tempfile.TemporaryDirectory() as scratch:
        count = write_large(images, contender.form, size_bytes, Path(scratch))
        return run_once(contender, task, count, Path(scratch)).measurement


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images()
    if options.large:
        table = format_memory(measure_memory(images, options.module, LARGE_BYTES))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            for contender in KINDS:
                for size in options.sizes:
                    write_images(images, size, contender.form, Path(scratch))
            task = prepare_task(options.module)
            table = format_speeds(run_rounds(KINDS, task, tuple(options.sizes), options.rounds, Path(scratch)).rounds)
    print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": describe_machine(), "module": options.module, "table": table.splitlines()}
    (options.output / "inputs.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
