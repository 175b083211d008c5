"""This checkout beside another commit, on the same records: `python -m benchmarks.commits COMMIT [--input PATTERN]`.

Both run in turn, with the packages of this environment. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Measurement, Round, measure
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task
from benchmarks.task import Task

START_UP_IMAGES = 10
MODES = {"exact": {}, "fast": {"decode": "fast"}, "fast, bfloat16": {"decode": "fast", "precision": "bfloat16"}}


@dataclass(frozen=True)
class Pair:
    """The same measured with the other commit, and with this checkout."""

    before: Round
    now: Round

    def ratio(self, figure: Callable[[Round], float]) -> float:
        """Returns a figure of this checkout, relative to the other commit; not a number if that has none."""
        before = figure(self.before)
        return figure(self.now) / before if before else math.nan


FIGURES: dict[str, Callable[[Round], float]] = {
    "images/s": lambda item: item.images_per_second,
    "CPU s / 1000": lambda item: item.cpu_s_per_1000,
    "start-up s": lambda item: item.small.seconds,
    "start-up CPU s": lambda item: item.small.cpu_s,
    "peak MiB": lambda item: item.large.peak_mib,
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__.splitlines()[0])
    parser.add_argument("commit", metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--images", type=int, default=4000, metavar="N", help="default: 4000")
    parser.add_argument("--mode", action="append", default=[], choices=list(MODES), help="default: exact and fast")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Yields a directory with the files of a commit."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "checkout")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", directory, commit], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", directory], check=True)


def run_pair(task: Task, sizes: dict[int, tuple[str, ...]], before: Path, scratch: Path, *, before_first: bool) -> Pair:
    """Runs both on a few and on many images."""

    def run(directory: Path, images: int) -> Measurement:
        output = scratch / "output"
        output.mkdir()
        asked = dataclasses.replace(task, files=sizes[images], output=str(output))
        measurement = measure("pipeline", asked, images, checkout=directory)
        shutil.rmtree(output)
        return measurement

    order = (before, Path.cwd()) if before_first else (Path.cwd(), before)
    found = {directory: Round(*(run(directory, images) for images in sizes)) for directory in order}
    return Pair(found[before], found[Path.cwd()])


def format_table(mode: str, pairs: Sequence[Pair]) -> str:
    """Returns the medians and the medians of ratios as a Markdown table."""
    lines = [f"| {mode} | before | now | ratio (min-max) |", "| --- | --- | --- | --- |"]
    for name, figure in FIGURES.items():
        before = statistics.median(figure(pair.before) for pair in pairs)
        now = statistics.median(figure(pair.now) for pair in pairs)
        # A round in which the large run was not slower than the small one has no speed.
        ratios = [ratio for pair in pairs if math.isfinite(ratio := pair.ratio(figure))]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})" if ratios else "no value"
        lines.append(f"| {name} | {before:.4g} | {now:.4g} | {spread} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    photos = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    report: dict[str, object] = {"machine": describe_machine(), "commit": options.commit, "module": options.module}
    with tempfile.TemporaryDirectory() as scratch, checkout(options.commit) as before:
        sizes = {
            images: data.write_tfrecords(photos, images, Path(scratch, str(images)))
            for images in (START_UP_IMAGES, options.images)
        }
        for mode in options.mode or ("exact", "fast"):
            asked = dataclasses.replace(task, options=MODES[mode])
            pairs = []
            for number in range(options.rounds):
                pairs.append(run_pair(asked, sizes, before, Path(scratch), before_first=number % 2 == 0))
                print(f"{mode}, round {number + 1}: {pairs[-1].ratio(FIGURES['images/s']):.3f}", file=sys.stderr)
            print(format_table(mode, pairs), end="\n\n")
            report[mode] = [dataclasses.asdict(pair) for pair in pairs]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "commits.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
