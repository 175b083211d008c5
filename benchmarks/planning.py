"""Measures planning and committing of many files: `python -m benchmarks.planning [--files N]`.

The listing is generated; there are no files. Each case is a process of its own: a first plan, the commit of its waves,
a plan with everything done, and a plan with 1 % of the files changed. Times include the listing and the interpreter's
start, not Beam's.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import describe_machine
from pipeline.core.settings import InputConfig
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.plan import Plan, make_plan
from pipeline.dataset.plan_files import write_plan
from pipeline.inputs.find import find_inputs
from pipeline.storage import listing
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.pages import FilePage

BASE = "gs://bucket/photos"
FOLDER_FILES = 1000
WAVE_BYTES = 256 << 30
"""As on remote runners."""
_TOKEN = "0" * 32
"""The next process commits what one planned."""
_MIB = 1 << 20
CASES = ("a first plan", "commits", "a plan, everything done", "a plan, 1 % changed")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000, metavar="N", help="default: 1000000")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser


def generated_pages(files: int, changed: int) -> Iterator[FilePage]:
    """Yields a listing; one file in `changed` has another time, none if 0."""
    for first in range(0, files, FOLDER_FILES):
        folder = f"{BASE}/{first // FOLDER_FILES:05d}"
        numbers = range(first, min(first + FOLDER_FILES, files))
        yield FilePage(
            folder,
            [f"{folder}/{number:010d}.jpg" for number in numbers],
            [60_000 + number % 80_000 for number in numbers],
            [1.7e9 + (0.5 if changed and not number % changed else 0.0) for number in numbers],
        )


def plan(files: int, output: str, changed: int = 0) -> Plan:
    """Lists and plans."""
    listing.match = lambda pattern: listing.Match(BASE, False, generated_pages(files, changed))
    found = find_inputs(InputConfig((BASE,)))
    return make_plan(found, output, metadata.read_manifests(output), wave_bytes=WAVE_BYTES)


def run_case(case: str, files: int, output: str) -> str:
    """Runs one case in this process; returns its result in words."""
    directory = LockedDirectory(output, _TOKEN, is_locked=False)
    if case == CASES[0]:
        found = plan(files, output)
        for number, wave in enumerate(found.waves):
            write_plan(directory, f"{number:05d}", wave)
        return f"{len(found.waves)} waves"
    if case == CASES[1]:
        waves = sorted(Path(directory.staged()).iterdir())
        for wave in waves:
            plan_files = tuple(map(str, sorted(wave.iterdir())))
            commit_wave(directory, WaveHeader(wave.name, datetime.datetime.now(datetime.UTC), {}, plan_files), ())
        return f"{len(waves)} commits"
    found = plan(files, output, changed=100 if case == CASES[3] else 0)
    return f"{len(found.waves)} waves, {found.skipped} done before"


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    if options.case:
        found = run_case(options.case, options.files, options.output)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(f"{found} | {peak / _MIB:.0f}")
        return 0
    print(f"{describe_machine()}; {options.files} files\n")
    print("| case | s | peak MiB | result |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as output:
        for case in CASES:
            started = time.monotonic()
            command = [sys.executable, "-m", "benchmarks.planning", f"--files={options.files}", f"--case={case}"]
            text = subprocess.run([*command, f"--output={output}"], check=True, capture_output=True, text=True).stdout
            result, _, peak = text.strip().rpartition(" | ")
            print(f"| {case} | {time.monotonic() - started:.1f} | {peak} | {result} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
