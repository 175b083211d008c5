"""Speed and memory of `read_table`: `python -m benchmarks.reading [--rows N] [--dimension D]`.

Writes a data set of random vectors in each format, and reads it in a separate process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import describe_machine
from pipeline import read_table
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.writer import BundleWriter
from pipeline.embedding.dataset_spec import Preprocessing, Spec
from pipeline.storage.locked import LockedDirectory

BATCH_ROWS = 1024
CASES = (("tfrecord", "all columns"), ("parquet", "all columns"), ("parquet", "key,label"))


@dataclass(frozen=True)
class Reading:
    """One reading of a table.

    Attributes:
      rows: number of rows read.
      seconds: from the call to the last row.
      start_mib: peak of resident memory before the call: Python and its libraries.
      peak_mib: peak of resident memory.
    """

    rows: int
    seconds: float
    start_mib: float
    peak_mib: float


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="default: 200000")
    parser.add_argument("--dimension", type=int, default=1280, metavar="D", help="length of a vector; default: 1280")
    parser.add_argument("--read", nargs=2, metavar=("OUT", "COLUMNS"), help=argparse.SUPPRESS)
    return parser


def write_dataset(output: str, file_format: str, rows: int, dimension: int) -> None:
    """Writes a data set of one wave with random vectors and an integer feature `label`."""
    preprocessing = Preprocessing(height=160, width=160, decode="exact", exif_orientation=False)
    spec = Spec("random", "0" * 64, "default", "default", dimension, preprocessing, "none", "none", "float32", None)
    directory = LockedDirectory.without_lock(output)
    write_spec(directory, spec)
    generator = np.random.default_rng(0)
    sinks = make_sinks([file_format])
    with BundleWriter(directory, "00000", sinks, SinkSettings("none", to_json(spec))) as writer:
        for start in range(0, rows, BATCH_ROWS):
            count = min(BATCH_ROWS, rows - start)
            numbers = range(start, start + count)
            vectors = generator.standard_normal(count * dimension, np.float32)
            columns = {
                "key": pa.array([f"photos/{number:09d}.jpg".encode() for number in numbers], pa.binary()),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension),
                "label": pa.array([[number % 1000] for number in numbers], pa.list_(pa.int64())),
            }
            writer.add(EmbeddingBatch((pa.RecordBatch.from_pydict(columns),), (), ()))
        staged = writer.close()
    commit_wave(directory, WaveHeader("00000", datetime.datetime.now(datetime.UTC), {}), [staged])


def read(output: str, columns: str) -> Reading:
    """Reads a table in this process, batch by batch."""
    start_mib = _peak_mib()
    start = time.perf_counter()
    reader = read_table(output, columns=None if columns == "all columns" else columns.split(","))
    rows = sum(batch.num_rows for batch in reader)
    return Reading(rows, time.perf_counter() - start, start_mib, _peak_mib())


def read_elsewhere(output: str, columns: str) -> Reading:
    """Reads a table in a new process, whose memory holds nothing else."""
    command = [sys.executable, "-m", "benchmarks.reading", "--read", output, columns]
    return Reading(**json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def _peak_mib() -> float:
    """Returns the peak of this program; `ru_maxrss` would include that of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(args: Sequence[str] | None = None) -> int:
    given = make_parser().parse_args(args)
    if given.read:
        print(to_json(read(*given.read)).decode())
        return 0
    lines = ["| format | columns | rows/s | peak MiB | of that for reading |", "| --- | --- | --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as scratch:
        for file_format in dict.fromkeys(case[0] for case in CASES):
            output = str(Path(scratch, file_format))
            write_dataset(output, file_format, given.rows, given.dimension)
            for columns in [case[1] for case in CASES if case[0] == file_format]:
                found = read_elsewhere(output, columns)
                speed, reading_mib = found.rows / found.seconds, found.peak_mib - found.start_mib
                lines.append(f"| {file_format} | {columns} | {speed:.0f} | {found.peak_mib:.0f} | {reading_mib:.0f} |")
    print(f"{given.rows} rows of {given.dimension} values; {describe_machine()}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
