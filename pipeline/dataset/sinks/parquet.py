"""Rows as Parquet files."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.settings import TIMESTAMP_COLUMN
from pipeline.dataset.sinks.base import SinkSettings, StagedShard
from pipeline.dataset.sinks.files import FileSink
from pipeline.dataset.sinks.parquet_schema import TIMESTAMP_TYPE, common_schema, to_schema
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.staged_file import StagedFile

ROW_GROUP_ROWS = 4096
"""Rows of a Parquet row group: about 20 MB of vectors, large enough to read fast and small enough to skip."""
_ROWS_PER_BATCH = 1024


class ParquetSink(FileSink):
    """Columns `key` (string), `embedding`, the copied features, and `event_timestamp`; one schema for a wave."""

    name = "parquet"
    has_times = True

    def encoder(self, file: BinaryIO, settings: SinkSettings) -> _Encoder:
        """See `FileSink`."""
        return _Encoder(file, settings)

    def schema(self, encoder: _Encoder) -> bytes:
        """See `FileSink`."""
        return bytes(encoder.schema.remove_metadata().serialize())

    def unify(self, directory: LockedDirectory, wave: str, shards: Sequence[StagedShard]) -> Sequence[StagedShard]:
        """See `Sink`: gives the files of a wave one schema."""
        if len({shard.schema for shard in shards}) < 2:
            return shards
        schema = common_schema(pa.ipc.read_schema(pa.py_buffer(shard.schema)) for shard in shards)
        wanted = bytes(schema.serialize())
        return [
            shard if shard.schema == wanted else _rewrite(directory, wave, shard, schema, wanted) for shard in shards
        ]

    def read(self, path: str) -> Iterator[pa.RecordBatch]:
        """See `Sink`."""
        return self.read_columns(path, lambda name: name != TIMESTAMP_COLUMN)

    def read_columns(self, path: str, is_wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
        """See `Sink`."""
        with filesystem.open_read(path) as file, pq.ParquetFile(file) as source:
            names = [name for name in source.schema_arrow.names if name == "key" or is_wanted(name)]
            # Group by group: Arrow fetches all groups that it is asked for at once, up to a whole file.
            groups = ([group] for group in range(source.num_row_groups))
            batches = (source.iter_batches(_ROWS_PER_BATCH, row_groups=group, columns=names) for group in groups)
            for rows in itertools.chain.from_iterable(batches):
                columns = {name: rows.column(name) for name in names}
                vectors = columns.get("embedding")
                if vectors is not None and (not pa.types.is_fixed_size_list(vectors.type) or vectors.null_count):
                    raise ValueError("a row has no embedding")
                yield pa.RecordBatch.from_pydict({**columns, "key": columns["key"].cast(pa.binary())})


def _rewrite(
    directory: LockedDirectory, wave: str, shard: StagedShard, schema: pa.Schema, serialized: bytes
) -> StagedShard:
    staged = StagedFile(directory, wave, "embeddings")
    with filesystem.open_read(shard.path) as file, pq.ParquetFile(file) as source:
        writer = _open_writer(staged.file, schema.with_metadata(source.schema_arrow.metadata))
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group).combine_chunks().to_batches()
            writer.write_table(pa.Table.from_batches([to_schema(batch, schema) for batch in rows], schema))
        writer.close()
    staged.rows = shard.rows
    return StagedShard.of(staged.close(), shard.kind, shard.format, shard.extension, shard.first_key, serialized)


def _open_writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=False, use_byte_stream_split=["embedding.list.element"]
    )


def _features(rows: pa.RecordBatch) -> Iterator[pa.Field]:
    return (item for item in rows.schema if item.name != TIMESTAMP_COLUMN)


class _Encoder:
    r"""Columns: `key` (string), `embedding`, the copied features (lists), `event_timestamp`.

    The features of the first row group define the columns of the file; missing features are null. Rows with a feature
    that has no column go to another file. Bytes of a key outside UTF-8 become `\xNN`, because a Parquet string cannot
    hold them. Rows without a time get that at which their row group is written.
    """

    def __init__(self, file: BinaryIO, settings: SinkSettings) -> None:
        self._file = file
        self._settings = settings
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._fields: dict[str, pa.Field] = {}
        self._writer: pq.ParquetWriter | None = None
        self.schema = pa.schema([])

    def accepts(self, rows: pa.RecordBatch) -> bool:
        for item in _features(rows):
            known = self._fields.get(item.name)
            if (known is None and self._writer is not None) or (known is not None and known.type != item.type):
                return False
        return True

    def write(self, rows: pa.RecordBatch) -> None:
        for item in _features(rows):
            self._fields.setdefault(item.name, item)
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = pa.concat_tables(
            [pa.Table.from_batches([rows]) for rows in self._waiting], promote_options="default"
        ).combine_chunks()
        columns = {name: self._column(table, name) for name in self._fields}
        now = pa.scalar(datetime.datetime.now(datetime.UTC), TIMESTAMP_TYPE)
        times = table[TIMESTAMP_COLUMN] if TIMESTAMP_COLUMN in table.schema.names else pa.nulls(len(table), now.type)
        columns[TIMESTAMP_COLUMN] = pc.fill_null(times, now)
        table = pa.table(columns)
        if self._writer is None:
            self.schema = table.schema.with_metadata({"spec.json": self._settings.spec_json})
            self._writer = _open_writer(self._file, self.schema)
        self._writer.write_table(table.cast(self._writer.schema), row_group_size=ROW_GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0

    def _column(self, table: pa.Table, name: str) -> Any:
        if name == "key":
            return pa.array([key.decode("utf-8", "backslashreplace") for key in table["key"].to_pylist()], pa.string())
        if name in table.schema.names:
            return table[name]
        return pa.nulls(len(table), self._fields[name].type)
