"""One schema for the Parquet files of a wave, whose rows may have different columns, or columns of different types.

A column that a file lacks is null. A column with several types gets the type that holds all their values: the wider
number (int64 and float become double), a list for a value and a list, and otherwise text.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.settings import OUTPUT_FEATURES, TIMESTAMP_COLUMN

_FIXED = (*OUTPUT_FEATURES, TIMESTAMP_COLUMN)


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Returns the schema that has all columns of some schemas: the copied ones by name, after `key` and `embedding`."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for item in schema:
            known = types.get(item.name, item.type)
            types[item.name] = known if item.name in _FIXED else _common_type(known, item.type)
    stamp = types.pop(TIMESTAMP_COLUMN, None)  # always the last column
    fields = [(name, types[name]) for name in (*OUTPUT_FEATURES, *sorted(set(types) - {*OUTPUT_FEATURES}))]
    return pa.schema([*fields, (TIMESTAMP_COLUMN, stamp)] if stamp is not None else fields)


def to_schema(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns rows with the columns of a schema that `common_schema` returned for theirs."""
    columns = [
        _to_type(rows.column(item.name), item.type)
        if item.name in rows.schema.names
        else pa.nulls(rows.num_rows, item.type)
        for item in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first == second:
        return first
    if _is_list(first) or _is_list(second):
        values = [kind.value_type if _is_list(kind) else kind for kind in (first, second)]
        return pa.list_(_common_type(*values))
    for binary, other in ((first, second), (second, first)):
        if pa.types.is_binary(binary) and not pa.types.is_null(other):
            return binary
    try:
        schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()


def _to_type(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == target:
        return column
    if not _is_list(target):
        if pa.types.is_binary(target) and not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        return column.cast(target, safe=False)
    if _is_list(column.type):
        lists = column.cast(pa.list_(column.type.value_type))
        offsets, values, valid = lists.offsets, lists.values, lists.is_valid()
    else:
        valid = column.is_valid()
        offsets = pa.array(np.concatenate([[0], np.cumsum(valid.to_numpy(zero_copy_only=False))]).astype(np.int32))
        values = column.drop_null()
    lists = pa.ListArray.from_arrays(offsets, _to_type(values, target.value_type))
    return pc.if_else(valid, lists, pa.scalar(None, lists.type)).cast(target)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
