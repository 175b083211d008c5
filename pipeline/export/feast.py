"""`--to=feast`: a feature repository of Feast, and the rows that it reads.

```
DIR/feature_store.yaml    a local store, written once: yours to change
DIR/embeddings.py         entity, source and feature view, with types and the length of the vectors
DIR/rows/*.parquet        the rows
DIR/end_time.txt          the end time for `feast materialize-incremental`
```

`event_timestamp` of a row is the time of the export that first contained it, and no earlier export's end time is as
late. So a loop that materializes up to `end_time.txt` skips no row, whatever the time between commit and export.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import UsageError
from pipeline.core.settings import TIMESTAMP_COLUMN
from pipeline.dataset.table import DatasetTable, TablePart
from pipeline.export.base import Exported, ExportSettings
from pipeline.export.columns import sql_name, sql_schema
from pipeline.export.directory import ExportDirectory
from pipeline.export.parquet import ParquetFiles
from pipeline.export.parts import is_part, write_parts
from pipeline.storage import filesystem

ROWS_NAME = "rows"
END_TIME_NAME = "end_time.txt"
DEFINITIONS_NAME = "embeddings.py"
STORE_NAME = "feature_store.yaml"
_COMMIT_COLUMN = "commit_time"
"""Column with the time right before the row was committed."""
_STORE = """project: {project}
provider: local
registry: data/registry.db
online_store:
  type: sqlite
  path: data/online_store.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""
_DEFINITIONS = '''"""Written by python -m pipeline.export --to=feast, which replaces it."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import {types}

image = Entity(name="image", join_keys=["key"], value_type=ValueType.STRING)
rows = FileSource(
    name="embeddings_rows",
    path={path},
    timestamp_field="event_timestamp",
)
embeddings = FeatureView(
    name="embeddings",
    entities=[image],
    ttl=timedelta(days=36525),  # with 0, Feast would materialize the last year only
    schema=[
        Field(name="key", dtype=String),
{fields}
    ],
    source=rows,
)
'''
_TYPES = {
    "string": "String",
    "large_string": "String",
    "binary": "Bytes",
    "large_binary": "Bytes",
    "bool": "Bool",
    "int8": "Int32",
    "int16": "Int32",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "Int32",
    "uint16": "Int32",
    "uint32": "Int64",
    "float": "Float32",
    "double": "Float64",
}


class FeastFiles(ParquetFiles):
    """Parquet files whose rows have the time of their first export."""

    def __init__(self, table: DatasetTable, known: Mapping[int, int], now: int) -> None:
        """Takes times.

        Args:
          table: whose rows are written.
          known: the times of earlier exports, by commit time of their rows; microseconds since 1970.
          now: the time of this export.
        """
        self._known = known
        self._now = now
        schema = table.schema
        index = schema.get_field_index("embedding")
        schema = schema.set(index, pa.field("embedding", pa.list_(pa.float32())))
        self._rows = schema.append(pa.field(_COMMIT_COLUMN, schema.field(TIMESTAMP_COLUMN).type))
        self.columns = sql_schema(self._rows)
        super().__init__(self.columns)

    def rows(self, part: TablePart, previous: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `PartFormat`."""
        # A row that an earlier file of this part lacks has returned, such as one whose input was out of sight.
        exported = dict(pair for path in previous for pair in _read_times(path, "key")) if previous else None
        for rows in part.rows():
            committed = rows.column(TIMESTAMP_COLUMN)
            if exported is None:
                times = [self._known.get(time, self._now) for time in committed.cast(pa.int64()).to_pylist()]
            else:
                times = [exported.get(key, self._now) for key in rows.column("key").to_pylist()]
            columns = {name: rows.column(name) for name in rows.schema.names}
            columns["embedding"] = columns["embedding"].cast(pa.list_(pa.float32()))
            columns[TIMESTAMP_COLUMN] = pa.array(times, pa.int64()).cast(committed.type)
            columns[_COMMIT_COLUMN] = committed
            yield pa.RecordBatch.from_arrays([columns[name] for name in self._rows.names], schema=self._rows)


class FeastDestination:
    """See `Destination`."""

    name = "feast"

    def export(self, table: DatasetTable, settings: ExportSettings) -> Exported:
        """See `Destination`."""
        output = filesystem.absolute(settings.output)
        with ExportDirectory(
            filesystem.join(output, ROWS_NAME), lambda name: is_part(name, table, ParquetFiles.extension)
        ) as directory:
            known: dict[int, int] = {}
            last = 0
            for name in directory.names:
                for committed, time in _read_times(directory.read_path(name), _COMMIT_COLUMN):
                    known[committed] = min(time, known.get(committed, time))
                    last = max(last, time)
            now = max(int(datetime.datetime.now(datetime.UTC).timestamp() * 1e6), last + 1)
            form = FeastFiles(table, known, now)
            definitions = _definitions(form.columns, table.schema.field("embedding").type.list_size, output)
            rows = write_parts(table, directory, form)
            if not directory.written:
                now = last
            done = Exported.of(directory, rows, _advice(settings.output))
            directory.publish()
        _write_if_changed(filesystem.join(output, DEFINITIONS_NAME), definitions)
        if not filesystem.exists(filesystem.join(output, STORE_NAME)):
            project = sql_name(PurePath(output).name).strip("_").lower() or "embeddings"
            _write_if_changed(filesystem.join(output, STORE_NAME), _STORE.format(project=project))
        end = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=now)
        _write_if_changed(filesystem.join(output, END_TIME_NAME), end.isoformat(timespec="microseconds") + "\n")
        return done


def _read_times(path: str, column: str) -> Iterator[tuple[Any, int]]:
    """Yields the values of a column of an exported file, each with its row's time in microseconds since 1970."""
    with filesystem.open_read(path) as file, pq.ParquetFile(file) as source:
        for rows in source.iter_batches(columns=[column, TIMESTAMP_COLUMN]):
            values = rows.column(column)
            values = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
            times = rows.column(TIMESTAMP_COLUMN).cast(pa.int64())
            pairs = pa.table([values, times], ["value", "time"]).group_by(["value", "time"]).aggregate([])
            yield from zip(pairs["value"].to_pylist(), pairs["time"].to_pylist(), strict=True)


def _definitions(schema: pa.Schema, vector: int, output: str) -> str:
    """Returns the definitions of a feature repository.

    Raises:
      UsageError: Feast has no type for a column.
    """
    names = [item.name for item in schema if item.name not in ("key", TIMESTAMP_COLUMN)]
    types = {name: _feast_type(schema.field(name)) for name in names}
    lines = [
        f"        Field(name={json.dumps(name)}, dtype={kind}"
        + (f", vector_index=True, vector_length={vector}" if name == "embedding" else "")
        + "),"
        for name, kind in types.items()
    ]
    imported = sorted({word for kind in ("String", *types.values()) for word in re.findall(r"\w+", kind)})
    path = filesystem.join(output, ROWS_NAME) if filesystem.is_remote(output) else ROWS_NAME
    return _DEFINITIONS.format(types=", ".join(imported), path=json.dumps(path), fields="\n".join(lines))


def _feast_type(item: pa.Field) -> str:
    kind = item.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _feast_type(pa.field(item.name, kind.value_type))
        if not inner.startswith("Array"):
            return f"Array({inner})"
    if pa.types.is_timestamp(kind):
        return "UnixTimestamp"
    if str(kind) not in _TYPES:
        raise UsageError(f"column {item.name!r} has the type {kind}, which Feast lacks; leave it out with --columns")
    return _TYPES[str(kind)]


def _write_if_changed(path: str, text: str) -> None:
    data = text.encode()
    if not filesystem.exists(path) or filesystem.read_bytes(path) != data:
        filesystem.write_atomically(path, data)


def _advice(output: str) -> str:
    return f'next: cd {output} && feast apply && feast materialize-incremental "$(cat {END_TIME_NAME})"'
