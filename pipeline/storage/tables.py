"""Tables that are larger than memory: Parquet files on this machine's disk, and SQL over them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.cores import usable_cores

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

GROUP_ROWS = 64_000
"""Rows of a Parquet row group, and of a record batch."""
SORTED_IN_MEMORY_ROWS = 1_000_000
"""Largest number of rows that are sorted without a database: some 300 MB with two long texts in a row."""
_MEMORY = "1GiB"
"""What a database holds in memory; larger intermediate results go to its scratch directory."""


class Scratch:
    """A directory for tables, on this machine's disk. It is removed with the object, or at the end of the process."""

    def __init__(self) -> None:
        """Creates the directory below the system's directory for temporary files (`TMPDIR`)."""
        self._directory = tempfile.mkdtemp(prefix="embedding-pipeline-")
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)

    def path(self, name: str) -> str:
        """Returns the path of a file in the directory."""
        return os.path.join(self._directory, name)

    @contextlib.contextmanager
    def database(self) -> Iterator[DuckDBPyConnection]:
        """Opens an empty database that uses a bounded amount of memory, and this directory for the rest.

        Raises:
          OSError: a table cannot be written, such as on a full disk.
        """
        import duckdb

        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": usable_cores(),
            "temp_directory": self.path("database"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with duckdb.connect(config=settings) as database:
                yield database
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise OSError(f"the tables in {self._directory} cannot be written: {error}") from error


class TableWriter:
    """Writes record batches to a Parquet file, in row groups of `GROUP_ROWS` or more rows."""

    def __init__(self, file: str | BinaryIO, schema: pa.Schema) -> None:
        """Begins the file.

        Args:
          file: a path on this machine's disk, or an open file, which stays open.
          schema: of the rows.
        """
        self.rows = 0
        self._path = file if isinstance(file, str) else None
        self._writer = pq.ParquetWriter(file, schema)
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; the columns are those of the schema, in its order."""
        self._waiting.append(batch if batch.schema.equals(self._schema) else batch.cast(self._schema))
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting_rows:
            table = pa.Table.from_batches(self._waiting, self._schema)
            with self._naming_file():
                self._writer.write_table(table, row_group_size=len(table))
        self._waiting, self._waiting_rows = [], 0

    @contextlib.contextmanager
    def _naming_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self._path
            raise

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Writes the last rows and closes the file."""
        if kind is None:
            self._flush()
        with self._naming_file():
            self._writer.close()


def write_sorted(scratch: Scratch, source: str, target: str, column: str) -> None:
    """Writes the rows of one Parquet file to another, in the order of a column.

    Raises:
      OSError: the file cannot be written.
    """
    with pq.ParquetFile(source) as file:
        if file.metadata.num_rows <= SORTED_IN_MEMORY_ROWS:  # a database takes 0.15 s and 50 MB, even for a few rows
            pq.write_table(file.read(use_threads=False).sort_by(column), target, row_group_size=GROUP_ROWS)
            return
    with scratch.database() as database:
        database.execute(f"COPY (SELECT * FROM read_parquet('{source}') ORDER BY {column}) TO '{target}'")


def release_memory() -> None:
    """Gives the memory that Arrow keeps for later tables back to the system: after a large table, there may be none."""
    pa.default_memory_pool().release_unused()


def read_batches(path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a Parquet file on this machine's disk, in order."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(GROUP_ROWS, columns=columns)


def read_rows(path: str, start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows from `start` to `stop` (exclusive) of a Parquet file; reads only their row groups."""
    with pq.ParquetFile(path) as file:
        first = 0
        for index in range(file.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            begin, end = max(start - first, 0), min(stop - first, rows)
            if begin < end:
                yield from file.read_row_group(index).slice(begin, end - begin).to_batches()
            first += rows
