"""One schema for the Parquet files of a wave, whose rows may have different columns, or columns of different types.

A column that a file lacks is null. A column with several types gets the type that holds all their values: the wider
number (int64 and float become double), a list for a value and a list, bytes for bytes and anything else, and otherwise
text; records, maps and the like become JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.settings import OUTPUT_FEATURES, TIMESTAMP_COLUMN

TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")
"""Type of the column `event_timestamp`."""
_FIXED = (*OUTPUT_FEATURES, TIMESTAMP_COLUMN)


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Returns the schema that has all columns of some schemas: the copied ones by name, after `key` and `embedding`."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for item in schema:
            known = types.get(item.name, item.type)
            types[item.name] = known if item.name in _FIXED else _common_type(known, item.type)
    stamp = types.pop(TIMESTAMP_COLUMN, None)  # always the last column
    names = (*OUTPUT_FEATURES, *sorted(types.keys() - {*OUTPUT_FEATURES}))
    fields = [(name, types[name]) for name in names if name in types]
    return pa.schema([*fields, (TIMESTAMP_COLUMN, stamp)] if stamp is not None else fields)


def to_schema(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns rows with the columns of a schema that `common_schema` returned for theirs, or for their `table_type`s.

    Raises:
      ValueError: a column has values that its new type cannot hold.
    """
    columns = [
        _to_type(rows.column(item.name), item.type)
        if item.name in rows.schema.names
        else pa.nulls(rows.num_rows, item.type)
        for item in schema
    ]
    return pa.record_batch(columns, schema=schema)


def without_times(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Returns rows without the column `event_timestamp`; a copied feature of this name stays."""
    index = rows.schema.get_field_index(TIMESTAMP_COLUMN)
    return rows.remove_column(index) if index >= 0 and rows.column(index).type == TIMESTAMP_TYPE else rows


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first == second:
        return first
    for kind, other in ((first, second), (second, first)):
        if pa.types.is_dictionary(kind):
            return _common_type(kind.value_type, other)
        if pa.types.is_null(kind):
            return other
    if _is_list(first) or _is_list(second):
        values = [kind.value_type if _is_list(kind) else kind for kind in (first, second)]
        return pa.list_(_common_type(*values))
    kinds = (first, second)
    if any(map(_is_binary, kinds)):
        is_large = any(pa.types.is_large_binary(kind) or pa.types.is_large_string(kind) for kind in kinds)
        return pa.large_binary() if is_large else pa.binary()
    if _is_no_common_number(first, second) or _is_no_common_number(second, first):
        return pa.string()
    try:
        schemas = [pa.schema([("x", kind)]) for kind in kinds]
        common = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        for kind in kinds:
            pa.nulls(0, kind).cast(common)  # not every type that Arrow finds can be converted to
    except pa.ArrowException:
        return pa.string()
    return common


def _is_no_common_number(first: pa.DataType, second: pa.DataType) -> bool:
    """Returns whether Arrow's common type of two numbers lacks digits for some values of the first one."""
    if pa.types.is_uint64(first):
        return bool(pa.types.is_signed_integer(second) or pa.types.is_decimal(second))
    return bool(pa.types.is_integer(first) and pa.types.is_decimal(second))


def _to_type(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == target:
        return column
    if pa.types.is_dictionary(column.type):
        return _to_type(column.dictionary_decode(), target)
    if not _is_list(target):
        if _is_list(column.type):
            return _to_type(_single_values(column), target)
        return _to_text(column, target) if _is_text(target) or _is_binary(target) else column.cast(target, safe=False)
    if _is_list(column.type):
        lists = column.cast(pa.list_(column.type.value_type))
        offsets, values, valid = lists.offsets, lists.values, lists.is_valid()
    else:
        offsets, values, valid = pa.array(np.arange(len(column) + 1, dtype=np.int32)), column, column.is_valid()
    lists = pa.ListArray.from_arrays(offsets, _to_type(values, target.value_type))
    return pc.if_else(valid, lists, pa.scalar(None, lists.type)).cast(target)


def _single_values(column: pa.Array) -> pa.Array:
    """Returns the value of each list; null for an empty list.

    Raises:
      ValueError: a list holds more than one value.
    """
    lists = column.cast(pa.list_(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    longest = pc.max(lengths).as_py() or 0
    if longest > 1:
        raise ValueError(f"a list of {longest} values stands where one value was expected")
    positions = pc.subtract(pc.cumulative_sum(lengths), 1)
    return lists.flatten().take(pc.if_else(pc.equal(lengths, 1), positions, pa.scalar(None, positions.type)))


def _to_text(column: pa.Array, target: pa.DataType) -> pa.Array:
    """Returns a column as text or bytes: Arrow's text of each value, or its JSON text if Arrow has none."""
    if not _is_text(column.type) and not _is_binary(column.type):
        try:
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            texts = [None if value is None else json.dumps(value, default=_json_text) for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
    return column.cast(target)


def _json_text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
