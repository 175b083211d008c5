"""`--to=parquet`: a plain directory of Parquet files with one schema."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.table import DatasetTable
from pipeline.export.base import Exported, ExportSettings
from pipeline.export.columns import sql_schema
from pipeline.export.directory import ExportDirectory
from pipeline.export.parts import PartFormat, is_part, write_parts

_GROUP_ROWS = 4096
"""Rows of a row group: about 20 MB of vectors of 1280 values."""


class ParquetFiles(PartFormat):
    """Parquet files without compression: vectors hardly shrink, and the export is as fast as the disk."""

    extension = ".parquet"
    version = "1"

    def __init__(self, schema: pa.Schema) -> None:
        """Takes the schema of the files, whose columns are those of the rows, with other names perhaps."""
        self._schema = schema

    def open(self, file: BinaryIO) -> ParquetPart:
        """See `PartFormat`."""
        return ParquetPart(file, self._schema)


class ParquetPart:
    """Writes one Parquet file."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        """Begins a file that stays open after `close`."""
        self._schema = schema
        encoded = [name for name in schema.names if name not in ("key", "embedding")]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression="none",
            use_dictionary=encoded or False,
            write_statistics=[name for name in schema.names if name != "embedding"],
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """See `PartWriter`."""
        self._waiting.append(rows.rename_columns(self._schema.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """See `PartWriter`."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting).cast(self._schema)
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0


class ParquetDestination:
    """See `Destination`."""

    name = "parquet"

    def export(self, table: DatasetTable, settings: ExportSettings) -> Exported:
        """See `Destination`."""
        form = ParquetFiles(sql_schema(table.schema))
        with ExportDirectory(settings.output, lambda name: is_part(name, table, form.extension)) as directory:
            rows = write_parts(table, directory, form)
            done = Exported.of(directory, rows)
            directory.publish()
        return done
