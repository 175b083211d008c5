"""The tables beside a manifest: the inputs of a wave, and the failures that it tried again.

`OUT/manifests/<wave>-inputs-*.parquet` has the columns of `INPUTS_SCHEMA`: `path` (path or URI), `name` (in the keys of
the records, unless a feature holds the keys), `size_bytes`, `mtime_s` (modification time, in seconds since 1970),
`records` (good or bad ones) and `keys` (origin of the keys: `name`, `offset` or `feature`). Texts have the form of
`pipeline.core.keys.to_column`. In format version 1, the manifest holds both tables as lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import OutputError
from pipeline.core.keys import from_column, to_column
from pipeline.dataset.manifest_v1 import inline_inputs, inline_retried
from pipeline.dataset.metadata import KeyKind, Manifest, TableEntry, TableKind
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.staged_file import StagedFile, WrittenFile
from pipeline.storage.tables import GROUP_ROWS, Scratch, TableWriter

INPUTS_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("name", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
        ("records", pa.int64()),
        ("keys", pa.string()),
    ]
)
RETRIED_SCHEMA = pa.schema([("source", pa.string())])
_SCHEMAS = {"inputs": INPUTS_SCHEMA, "retried": RETRIED_SCHEMA}


@dataclass(frozen=True)
class InputEntry:
    """An input file that a wave covers, in its state at planning time.

    Attributes:
      path: its path or URI.
      name: its name in the keys of its records, unless a feature holds the keys.
      size_bytes: its size.
      mtime_s: modification time, in seconds since 1970.
      records: number of its records, good or bad.
      keys: origin of its records' keys: its `name`, the name and an `offset`, or a `feature`.
    """

    path: str
    name: str
    size_bytes: int
    mtime_s: float
    records: int = 1
    keys: KeyKind = "offset"


def stage_table(
    directory: LockedDirectory, wave: str, kind: TableKind, batches: Iterable[pa.RecordBatch]
) -> WrittenFile | None:
    """Writes a table to the staging directory; returns None if it has no rows.

    Raises:
      OutputError: another run has taken over the data set.
      OSError: the file cannot be written.
    """
    first = next(iter_rows := (batch for batch in batches if batch.num_rows), None)
    if first is None:
        return None
    staged = StagedFile(directory, wave, kind)
    with TableWriter(staged.file, _SCHEMAS[kind]) as writer:
        writer.write(first)
        for batch in iter_rows:
            writer.write(batch)
    staged.rows = writer.rows
    return staged.close()


def inputs_of(entries: Sequence[InputEntry]) -> pa.RecordBatch:
    """Returns entries as rows of `INPUTS_SCHEMA`."""
    columns = [
        [to_column(entry.path) for entry in entries],
        [to_column(entry.name) for entry in entries],
        [entry.size_bytes for entry in entries],
        [entry.mtime_s for entry in entries],
        [entry.records for entry in entries],
        [entry.keys for entry in entries],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INPUTS_SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=INPUTS_SCHEMA)


def retried_of(sources: Iterable[str]) -> pa.RecordBatch:
    """Returns sources of failures as rows of `RETRIED_SCHEMA`."""
    return pa.record_batch([pa.array(map(to_column, sources), pa.string())], schema=RETRIED_SCHEMA)


def read_inputs(output: str, manifest: Manifest) -> Iterator[pa.RecordBatch]:
    """Yields the inputs of a wave as rows of `INPUTS_SCHEMA`.

    Raises:
      OutputError: a table cannot be read.
    """
    for table in manifest.inputs:
        if table.is_inline:
            loaded = json.loads(filesystem.read_bytes(filesystem.join(output, table.path)))
            yield inputs_of([InputEntry(**item) for item in inline_inputs(loaded)])
        else:
            yield from _read_table(output, table, INPUTS_SCHEMA)


def read_entries(output: str, manifest: Manifest) -> Iterator[InputEntry]:
    """Yields the inputs of a wave as records.

    Raises:
      OutputError: a table cannot be read.
    """
    for rows in read_inputs(output, manifest):
        for row in rows.to_pylist():
            yield InputEntry(**{**row, "path": from_column(row["path"]), "name": from_column(row["name"])})


def read_retried(output: str, manifest: Manifest) -> Iterator[str]:
    """Yields the sources of the failures that a wave tried again.

    Raises:
      OutputError: a table cannot be read.
    """
    for table in manifest.retried:
        if table.is_inline:
            yield from inline_retried(json.loads(filesystem.read_bytes(filesystem.join(output, table.path))))
        else:
            for rows in _read_table(output, table, RETRIED_SCHEMA):
                yield from map(from_column, rows.column("source").to_pylist())


def _read_table(output: str, entry: TableEntry, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    path = filesystem.join(output, entry.path)
    rows = 0
    try:
        with filesystem.open_read(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(GROUP_ROWS, columns=schema.names):
                rows += batch.num_rows
                yield batch.cast(schema)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error
    if rows != entry.rows:
        raise OutputError(f"{path} has {rows} rows, {entry.rows} in the manifest; run python -m pipeline.verify")


def copy_inputs(output: str, manifests: Iterable[Manifest], scratch: Scratch, name: str) -> str:
    """Copies the inputs of waves into one Parquet file on this machine's disk, with the column `wave` (a number).

    Args:
      output: directory of the data set.
      manifests: of the waves.
      scratch: the directory of the copy.
      name: of the copy.

    Returns:
      The path of the copy.

    Raises:
      OutputError: a table cannot be read.
    """
    path = scratch.path(name)
    schema = INPUTS_SCHEMA.append(pa.field("wave", pa.int64()))
    with TableWriter(path, schema) as writer:
        for manifest in manifests:
            for rows in read_inputs(output, manifest):
                waves = pa.array([int(manifest.wave)] * rows.num_rows, pa.int64())
                writer.write(pa.record_batch([*rows.columns, waves], schema=schema))
    return path
