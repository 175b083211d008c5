"""The columns of a data set as a table has them: one schema for the rows of all waves.

A list that never holds more than one value becomes that value, and bytes that are always UTF-8 become text. Writers
note the schema of their rows in the manifest, so that a reader of the table need not look at all rows first.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.settings import OUTPUT_FEATURES, TIMESTAMP_COLUMN
from pipeline.dataset.sinks.base import Sink
from pipeline.dataset.sinks.parquet_schema import common_schema
from pipeline.dataset.sinks.registry import SINKS

TABLE_FORMATS = tuple(reversed(SINKS.names))
"""The formats of rows, from the one that a table is best read from."""

_TEXTS = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string(), pa.binary_view(): pa.string_view()}


class TableColumns:
    """Collects the copied columns of some rows; `schema` then has their types in a table."""

    def __init__(self, stored_type: Callable[[pa.DataType], pa.DataType] = lambda kind: kind) -> None:
        """Begins without columns.

        Args:
          stored_type: see `Sink.stored_type`, for rows that are not written yet.
        """
        self.schema = pa.schema([])
        self._stored_type = stored_type

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds the columns of rows, in the form of `EmbeddingBatch.rows`."""
        names = [name for name in rows.schema.names if name not in (*OUTPUT_FEATURES, TIMESTAMP_COLUMN)]
        self.merge(pa.schema([(name, self._stored_type(table_type(rows.column(name)))) for name in names]))

    def merge(self, schema: pa.Schema) -> None:
        """Adds the columns of other rows, by the schema that a `TableColumns` has of these."""
        if any(self._type_of(item.name) != item.type for item in schema):
            self.schema = common_schema([self.schema, schema])

    def _type_of(self, name: str) -> pa.DataType | None:
        index = self.schema.get_field_index(name)
        return self.schema.field(index).type if index >= 0 else None


def table_sink(sinks: Sequence[Sink]) -> Sink:
    """Returns the sink whose files a table is read from, if a wave is written by several."""
    by_name = {sink.name: sink for sink in sinks}
    return next((by_name[name] for name in TABLE_FORMATS if name in by_name), sinks[0])


def table_type(column: pa.Array) -> pa.DataType:
    """Returns the type of a copied column in a table, if these are all of its values."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return table_type(column.dictionary_decode())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = table_type(column.flatten())
        longest = pc.max(pc.list_value_length(column)).as_py() or 0
        return values if longest <= 1 else pa.list_(values)
    return _TEXTS[kind] if kind in _TEXTS and _is_text(column, _TEXTS[kind]) else kind


def _is_text(column: pa.Array, target: pa.DataType) -> bool:
    try:
        column.cast(target)
    except pa.ArrowInvalid:
        return False
    return True


def to_text(schema: pa.Schema) -> str:
    """Returns a schema as text for a manifest: Arrow's message in base64."""
    return base64.b64encode(bytes(schema.serialize())).decode()


def from_text(text: str) -> pa.Schema:
    """Returns the schema of a text from `to_text`.

    Raises:
      ValueError: the text is damaged.
    """
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))


def merged(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Returns the schema of the rows of several `TableColumns`."""
    columns = TableColumns()
    for schema in schemas:
        columns.merge(schema)
    return columns.schema
