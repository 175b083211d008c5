"""The cost of each preset of `--preprocess`, beside `hub`: `python -m benchmarks.presets [--input PATTERN]`.

Every round runs all presets in turn, on the same records. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Measurement, Round, measure
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task
from benchmarks.task import Task

BASE = "hub"
START_UP_IMAGES = 10


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presets", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument("--preset", action="append", default=[], metavar="NAME", help="default: imagenet and clip")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def run_preset(task: Task, preset: str, sizes: Mapping[int, tuple[str, ...]], scratch: Path) -> Round:
    """Runs the pipeline with a preset, on a few and on many images."""

    def run(images: int) -> Measurement:
        output = scratch / "output"
        output.mkdir()
        asked = dataclasses.replace(
            task, files=sizes[images], output=str(output), options={**task.options, "preprocess": preset}
        )
        measurement = measure("pipeline", asked, images)
        shutil.rmtree(output)
        return measurement

    return Round(*(run(images) for images in sizes))


def format_table(rounds: Mapping[str, Sequence[Round]]) -> str:
    """Returns the medians, and the medians of the ratios to the base, as a Markdown table."""
    lines = [
        "| preset | images/s | CPU s / 1000 | CPU, relative to hub (min-max) |",
        "| --- | --- | --- | --- |",
    ]
    for preset, items in rounds.items():
        ratios = [item.cpu_s_per_1000 / base.cpu_s_per_1000 for item, base in zip(items, rounds[BASE], strict=True)]
        lines.append(
            f"| {preset} | {statistics.median(item.images_per_second for item in items):.0f} "
            f"| {statistics.median(item.cpu_s_per_1000 for item in items):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    photos = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    presets = (BASE, *(options.preset or ("imagenet", "clip")))
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {
            images: data.write_tfrecords(photos, images, Path(scratch, str(images)))
            for images in (START_UP_IMAGES, options.images)
        }
        rounds: dict[str, list[Round]] = {preset: [] for preset in presets}
        for number in range(options.rounds):
            for preset in presets if number % 2 == 0 else reversed(presets):
                rounds[preset].append(run_preset(task, preset, sizes, Path(scratch)))
                print(f"round {number + 1}, {preset}: {rounds[preset][-1].cpu_s_per_1000:.2f}", file=sys.stderr)
    print(format_table(rounds))
    report = {"machine": describe_machine(), "module": options.module}
    report |= {preset: [dataclasses.asdict(item) for item in items] for preset, items in rounds.items()}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "presets.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
