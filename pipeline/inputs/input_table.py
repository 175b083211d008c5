"""The input files of a run as a table on disk: there may be millions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.keys import from_column, to_column
from pipeline.inputs.base import InputFile
from pipeline.storage.tables import GROUP_ROWS, Scratch, TableWriter, read_batches

INPUT_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
    ]
)
"""The fields of `InputFile`; texts in the form of `to_column`."""


class InputTable:
    """The input files of a run, in a Parquet file with `INPUT_SCHEMA`, in any order.

    Attributes:
      path: of the Parquet file, on this machine's disk.
      rows: number of files.
    """

    def __init__(self, scratch: Scratch, path: str, rows: int) -> None:
        """Wraps a written file.

        Args:
          scratch: the directory of the file, which exists as long as this object.
          path: of the file.
          rows: number of its rows.
        """
        self._scratch = scratch
        self.path = path
        self.rows = rows

    @classmethod
    def of(cls, files: Iterable[InputFile]) -> InputTable:
        """Returns the table of some files."""
        scratch = Scratch()
        path = scratch.path("inputs.parquet")
        with TableWriter(path, INPUT_SCHEMA) as writer:
            write_files(writer, files)
        return cls(scratch, path, writer.rows)

    def by_path(self) -> list[InputFile]:
        """Returns all files, sorted by path; for inputs that fit into memory."""
        return sorted(self, key=lambda file: file.path)

    def samples_of_each_kind(self) -> dict[str, list[InputFile]]:
        """Returns a few files of each kind, each once: the first one by path, the largest one and the last one."""
        found: dict[str, list[InputFile]] = {}
        for batch in read_batches(self.path):
            for kind in pc.unique(batch.column("kind")).to_pylist():
                rows = batch.filter(pc.equal(batch.column("kind"), kind))
                paths, sizes = rows.column("path"), rows.column("size_bytes")
                ends = pc.min_max(paths)
                chosen = [pc.index(paths, ends["min"]), pc.index(sizes, pc.max(sizes)), pc.index(paths, ends["max"])]
                files = sorted(
                    (*found.get(kind, ()), *to_files(rows.take(pa.array([index.as_py() for index in chosen])))),
                    key=lambda file: file.path,
                )
                largest = max(files, key=lambda file: file.size_bytes)
                found[kind] = list(dict.fromkeys((files[0], largest, files[-1])))
        return found

    def without_kind(self, kind: str) -> InputTable:
        """Returns the table without the files of a kind."""
        path = self._scratch.path(f"without-{kind}-{os.path.basename(self.path)}")
        with TableWriter(path, INPUT_SCHEMA) as writer:
            for batch in read_batches(self.path):
                writer.write(batch.filter(pc.not_equal(batch.column("kind"), kind)))
        return InputTable(self._scratch, path, writer.rows)

    def __iter__(self) -> Iterator[InputFile]:
        """Yields the files, in the order of the table."""
        for batch in read_batches(self.path):
            yield from to_files(batch)


def write_files(writer: TableWriter, files: Iterable[InputFile]) -> None:
    """Adds files to a table with `INPUT_SCHEMA`."""
    waiting: list[InputFile] = []
    for file in files:
        waiting.append(file)
        if len(waiting) == GROUP_ROWS:
            writer.write(from_files(waiting))
            waiting = []
    if waiting:
        writer.write(from_files(waiting))


def from_files(files: Iterable[InputFile]) -> pa.RecordBatch:
    """Returns files as rows."""
    files = tuple(files)
    columns = [
        pa.array([to_column(file.path) for file in files], pa.string()),
        pa.array([to_column(file.name) for file in files], pa.string()),
        pa.array([file.kind for file in files], pa.string()),
        pa.array([file.size_bytes for file in files], pa.int64()),
        pa.array([file.mtime_s for file in files], pa.float64()),
    ]
    return pa.record_batch(columns, schema=INPUT_SCHEMA)


def to_files(rows: pa.RecordBatch) -> list[InputFile]:
    """Returns rows as files."""
    columns = (rows.column(name).to_pylist() for name in INPUT_SCHEMA.names)
    return [
        InputFile(from_column(path), from_column(name), kind, size_bytes, mtime_s)
        for path, name, kind, size_bytes, mtime_s in zip(*columns, strict=True)
    ]
