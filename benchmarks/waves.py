"""Measures the cost of waves: `python -m benchmarks.waves [--input PATTERN]`.

Each round embeds the same files once as one wave, and once with one wave for each file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Measurement, measure
from benchmarks.report import describe_machine
from benchmarks.run import DEFAULT_MODULE, prepare_task


@dataclass(frozen=True)
class Round:
    """A run with one wave, and a run with many."""

    one: Measurement
    many: Measurement

    @property
    def time_ratio(self) -> float:
        """Wall time of many waves, relative to one."""
        return self.many.seconds / self.one.seconds

    @property
    def cpu_ratio(self) -> float:
        """Processor time of many waves, relative to one."""
        return self.many.cpu_s / self.one.cpu_s


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waves", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--images", type=int, default=20_000, metavar="N", help="default: 20000")
    parser.add_argument("--waves", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="for the JSON")
    return parser


def format_table(rounds: Sequence[Round]) -> str:
    """Returns the rounds as a Markdown table, and their medians."""
    lines = [
        "| one wave, s | many waves, s | ratio | CPU s | CPU s | ratio | other programs' cores |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for item in rounds:
        lines.append(
            f"| {item.one.seconds:.1f} | {item.many.seconds:.1f} | {item.time_ratio:.3f} "
            f"| {item.one.cpu_s:.1f} | {item.many.cpu_s:.1f} | {item.cpu_ratio:.3f} "
            f"| {max(item.one.other_cores, item.many.other_cores):.1f} |"
        )
    time = statistics.median(item.time_ratio for item in rounds)
    cpu = statistics.median(item.cpu_ratio for item in rounds)
    lines.append(f"| | | **{time:.3f}** | | | **{cpu:.3f}** | |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images()
    task = prepare_task(options.module)
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        files = data.write_tfrecords(images, options.images, Path(scratch, "input"), files=options.waves)

        def run(wave_bytes: int) -> Measurement:
            output = Path(scratch, "output")
            output.mkdir()
            asked = dataclasses.replace(task, files=files, output=str(output), options={"wave_bytes": wave_bytes})
            measurement = measure("pipeline", asked, options.images)
            waves = len(list((output / "manifests").glob("*.json")))
            assert waves == (1 if wave_bytes > largest else options.waves), waves
            shutil.rmtree(output)
            return measurement

        largest = max(os.path.getsize(file) for file in files)
        for number in range(options.rounds):
            # The order alternates, as the first run of a round may find the machine in another state.
            one_first = number % 2 == 0
            first = run(1 << 50 if one_first else largest)
            second = run(largest if one_first else 1 << 50)
            rounds.append(Round(*((first, second) if one_first else (second, first))))
            print(f"round {number + 1}: {rounds[-1].time_ratio:.3f}", file=sys.stderr)
    print(format_table(rounds))
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": describe_machine(),
        "module": options.module,
        "waves": options.waves,
        "rounds": [dataclasses.asdict(item) for item in rounds],
    }
    (options.output / "waves.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
