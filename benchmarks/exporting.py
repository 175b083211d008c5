"""Measures exports beside a copy of the same files: `python -m benchmarks.exporting [--rows N]`.

Makes a data set of Parquet files with random vectors, copies its rows with `shutil`, and exports them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.tables import inputs_of, retried_of, stage_table
from pipeline.dataset.writer import BundleWriter
from pipeline.embedding.dataset_spec import Preprocessing, Spec
from pipeline.storage.locked import LockedDirectory
from pipeline.tfrecords.examples import embedding_rows

_BATCH_ROWS = 1000
_MEASURED = """
import resource, sys, time
from pipeline.commands.export import main
start = time.perf_counter()
code = main(sys.argv[1:])
seconds = time.perf_counter() - start
sys.stderr.write(f"{seconds} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
sys.exit(code)
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exporting", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="default: 1000000")
    parser.add_argument("--dimension", type=int, default=1280, metavar="D", help="values of a vector. Default: 1280")
    parser.add_argument("--to", action="append", default=[], metavar="FORMAT", help="default: parquet and faiss")
    parser.add_argument("--directory", metavar="DIR", help="where the files go for the time of the measurement")
    return parser


def make_dataset(output: Path, rows: int, dimension: int) -> None:
    """Commits one wave of random vectors."""
    directory = LockedDirectory(str(output), "0" * 32, is_locked=False)
    transform = Preprocessing(height=160, width=160, decode="exact", exif_orientation=False)
    spec = Spec("random", "0" * 64, "default", "default", dimension, transform, "none", "tensorflow", "float32", None)
    write_spec(directory, spec)
    started = datetime.datetime.now(datetime.UTC)
    generator = np.random.default_rng(0)
    with BundleWriter(directory, "00000", make_sinks(["parquet"]), SinkSettings("none", to_json(spec))) as writer:
        for first in range(0, rows, _BATCH_ROWS):
            keys = [f"photos/{number:09d}.jpg" for number in range(first, min(first + _BATCH_ROWS, rows))]
            vectors = generator.standard_normal((len(keys), dimension), np.float32)
            records = [ImageRecord(key.encode(), "", b"") for key in keys]
            writer.add(EmbeddingBatch(embedding_rows(records, vectors), (), tuple(keys)))
        staged = [writer.close()]
    tables = {
        "inputs": stage_table(directory, "00000", "inputs", [inputs_of([])]),
        "retried": stage_table(directory, "00000", "retried", [retried_of([])]),
    }
    commit_wave(directory, WaveHeader("00000", started, {}, **tables), staged)


def copy(source: Path, target: Path) -> float:
    """Copies the rows of a data set to the device; returns the seconds that this takes."""
    start = time.perf_counter()
    target.mkdir()
    for path in sorted(source.rglob("*.parquet")):
        shutil.copyfile(path, target / path.name)
        with (target / path.name).open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - start


def main(args: Sequence[str] | None = None) -> int:
    given = make_parser().parse_args(args)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        folder = Path(name)
        start = time.perf_counter()
        make_dataset(folder / "out", given.rows, given.dimension)
        size = sum(path.stat().st_size for path in (folder / "out" / "embeddings").rglob("*.parquet"))
        print(f"{given.rows} rows of {given.dimension} values, {size / 1e9:.2f} GB, made in {_since(start)}")
        copied = copy(folder / "out" / "embeddings", folder / "copy")
        print(f"copy: {copied:.1f} s, {size / copied / 1e6:.0f} MB/s")
        shutil.rmtree(folder / "copy")
        for to in given.to or ["parquet", "faiss"]:
            command = [sys.executable, "-c", _MEASURED, folder / "out", f"--to={to}", f"--output={folder / to}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.stderr.write(done.stderr)
                return 1
            seconds, peak_kib = map(float, done.stderr.split()[-2:])
            print(f"{to}: {seconds:.1f} s, {copied / seconds:.2f} of the copy's speed, peak {peak_kib / 1024:.0f} MiB")
            shutil.rmtree(folder / to)
    return 0


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
