"""`schema.pbtxt`: the features of the TFRecords of a data set, as a `Schema` of TensorFlow Metadata.

With it, `tfx_bsl.public.tfxio.TFExampleRecord`, TFX and TensorFlow Data Validation read the files.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.core.settings import TIMESTAMP_COLUMN


def example_schema(columns: pa.Schema, dimension: int, before: bytes) -> bytes:
    """Returns the text of a schema.

    Args:
      columns: the types of the copied features in a table, of those that an Example can hold.
      dimension: length of a vector.
      before: the schema of the rows that the data set has already; empty if there are none.

    Raises:
      ValueError: `before` is no schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    known: dict[str, Any] = {}
    try:
        known = {item.name: item for item in text_format.Parse(before, schema_pb2.Schema()).feature}
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error
    key = schema.feature.add(name="key", type=schema_pb2.BYTES)
    vector = schema.feature.add(name="embedding", type=schema_pb2.FLOAT)
    vector.shape.dim.add(size=dimension)
    for feature in (key, vector):
        feature.presence.min_fraction, feature.presence.min_count = 1, 1
    key.shape.dim.add(size=1)
    copied = {item.name: item.type for item in columns if item.name != TIMESTAMP_COLUMN}
    for name in sorted(copied.keys() | (known.keys() - {"key", "embedding"})):
        feature = schema.feature.add(name=name)
        types = {known[name].type} if name in known else set()
        is_list = name in known and not known[name].value_count.max
        if name in copied:
            is_list |= pa.types.is_list(copied[name])
            values = copied[name].value_type if pa.types.is_list(copied[name]) else copied[name]
            types.add(_example_type(values))
        feature.type = types.pop() if len(types) == 1 else schema_pb2.BYTES
        feature.value_count.min = 0
        if not is_list:
            feature.value_count.max = 1
    return str(text_format.MessageToString(schema)).encode()


def _example_type(kind: pa.DataType) -> Any:
    from tensorflow_metadata.proto.v0 import schema_pb2

    if pa.types.is_int64(kind):
        return schema_pb2.INT
    return schema_pb2.FLOAT if pa.types.is_float32(kind) else schema_pb2.BYTES
