"""Measures time and memory for inputs of several sizes: `python -m benchmarks.scale [--input PATTERN]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.contenders import Contender
from benchmarks.measure import Measurement
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task, run_once, write_images

SIZES = (1000, 4000, 16_000)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="default: 1000 4000 16000")
    parser.add_argument("--image_files", action="store_true", help="image files, not TFRecords")
    parser.add_argument("--side", type=int, default=500, metavar="PIXELS", help="of generated images; default: 500")
    parser.add_argument("--fast", action="store_true", help="reduced-scale decoding and bfloat16")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def format_table(measurements: Sequence[Measurement]) -> str:
    """Returns the measurements as a Markdown table; the last column is memory relative to the first measurement."""
    lines = [
        "| images | seconds | images/s | CPU s / 1000 | peak MiB | of the first |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for item in measurements:
        lines.append(
            f"| {item.images} | {item.seconds:.1f} | {item.images / item.seconds:.0f} "
            f"| {1000 * item.cpu_s / item.images:.2f} | {item.peak_mib:.0f} "
            f"| {item.peak_mib / measurements[0].peak_mib:.2f} |"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images(side=options.side)
    task = prepare_task(options.module)
    speed = {"decode": "fast", "precision": "bfloat16"} if options.fast else {}
    contender = Contender("pipeline", "pipeline", speed, form="files" if options.image_files else "tfrecord")
    measurements = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            write_images(images, size, contender.form, Path(scratch))
            measurements.append(run_once(contender, task, size, Path(scratch)).measurement)
    print(format_table(measurements))
    options.output.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(item) for item in measurements]
    report = {"machine": describe_machine(), "module": options.module, "rows": rows}
    (options.output / "scale.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
