"""`tf.train.Example` to records and back, without TensorFlow.

This module declares the messages of the public schema (tensorflow/core/example/feature.proto). protobuf parses them in
C; workers need not load TensorFlow for them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import message
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure, FailureReason
from pipeline.core.keys import key_to_bytes
from pipeline.core.protobuf import message_classes
from pipeline.core.records import Feature, FeatureKind, ImageRecord
from pipeline.core.settings import OUTPUT_FEATURES
from pipeline.tfrecords.encoder import Encoder, make_encoder

_KINDS: dict[str, FeatureKind] = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}

_EXAMPLE_TYPES = {
    pa.int64(): (pa.types.is_integer, pa.types.is_boolean),
    pa.float32(): (pa.types.is_floating,),
    pa.binary(): (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    ),
}
"""The types of lists in an Example, and the types of values that they can hold."""

_DECLARATION = """
    message BytesList { repeated bytes value = 1; }
    message FloatList { repeated float value = 1; }
    message Int64List { repeated int64 value = 1; }
    message Feature {
        oneof kind {
            BytesList bytes_list = 1;
            FloatList float_list = 2;
            Int64List int64_list = 3;
        }
    }
    message Features { map<string, Feature> feature = 1; }
    message Example { Features features = 1; }
"""


@functools.cache
def _example_class() -> Any:
    """Returns the message class `Example`, which is wire-compatible with `tf.train.Example`."""
    return message_classes("pipeline.example", _DECLARATION)["Example"]


def parse_example(
    data: bytes,
    *,
    address: str,
    source: str,
    image_feature: str,
    key_feature: str | None = None,
    passthrough: Collection[str] = (),
) -> ImageRecord | Failure:
    """Returns the image record in a serialized `tf.train.Example`, or a failure with the reason.

    Args:
      data: the serialized Example.
      address: the key if no feature holds one: `path@offset`.
      source: origin of the record, for people.
      image_feature: the bytes feature that holds the one encoded image.
      key_feature: the feature that holds the key: one bytes value, or one int64 written in decimal.
      passthrough: names of the features to copy, or `*` for all except the image and the names that every output
        record already has (`key`, `embedding`).
    """
    key = key_to_bytes(address)

    def failure(reason: FailureReason, text: str) -> Failure:
        return Failure(key, source, "read", reason, text)

    try:
        features = _example_class().FromString(data).features.feature
    except message.DecodeError:
        return failure("corrupt_record", f"{len(data)} bytes arrived that are not a tf.train.Example")
    if key_feature is not None:
        found = _single_value(features, key_feature, ("bytes_list", "int64_list"))
        if isinstance(found, str):
            return failure("missing_feature", f"no key: {found}")
        key = found if isinstance(found, bytes) else str(found).encode()
    image = _single_value(features, image_feature, ("bytes_list",))
    if isinstance(image, str):
        return failure("missing_feature", f"no image: {image}")
    return ImageRecord(key, source, image, _copied(features, image_feature, passthrough))


def decode_features(data: bytes) -> dict[str, Feature]:
    """Returns all features with values of a serialized `tf.train.Example`; none if the bytes are no Example."""
    try:
        features = _example_class().FromString(data).features.feature
    except message.DecodeError:
        return {}
    kinds = {name: features[name].WhichOneof("kind") for name in features}
    return {
        name: Feature(_KINDS[kind], tuple(getattr(features[name], kind).value))
        for name, kind in kinds.items()
        if kind is not None
    }


def _single_value(features: Any, name: str, kinds: Sequence[str]) -> Any:
    """Returns the single value of a feature, or an error text if the feature does not have exactly one value."""
    if name not in features:
        return f"the record has no feature '{name}'"
    feature = features[name]
    kind = feature.WhichOneof("kind")
    if kind is None:
        return f"feature '{name}' is empty"
    if kind not in kinds:
        wanted = " or ".join(_KINDS[k] for k in kinds)
        return f"feature '{name}' holds {_KINDS[kind]} values where {wanted} was expected"
    values = getattr(feature, kind).value
    if len(values) != 1:
        return f"feature '{name}' holds {len(values)} values where one was expected"
    return values[0]


def _copied(features: Any, image_feature: str | None, passthrough: Collection[str]) -> dict[str, Feature]:
    if not passthrough:
        return {}
    names = sorted(features) if "*" in passthrough else [name for name in passthrough if name in features]
    copied = {}
    for name in names:
        kind = features[name].WhichOneof("kind")
        if name != image_feature and name not in OUTPUT_FEATURES and kind is not None:
            copied[name] = Feature(_KINDS[kind], tuple(getattr(features[name], kind).value))
    return copied


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Returns features as a serialized `tf.train.Example`; equal features have equal bytes."""
    example = _example_class()()
    for name, feature in features.items():
        getattr(example.features.feature[name], f"{feature.kind}_list").value.extend(feature.values)
    encoded: bytes = example.SerializeToString(deterministic=True)
    return encoded


def embedding_rows(records: Sequence[ImageRecord], embeddings: NDArray[np.float32]) -> tuple[pa.RecordBatch, ...]:
    """Returns records and their embeddings as Arrow record batches, in the form of `EmbeddingBatch.rows`.

    Args:
      records: N records.
      embeddings: float32 [N, D], row i for record i.
    """
    schemas = [tuple((name, feature.type) for name, feature in record.features.items()) for record in records]
    batches = []
    start = 0
    for stop in range(1, len(records) + 1):
        if stop == len(records) or schemas[stop] != schemas[start]:
            batches.append(_rows(records[start:stop], embeddings[start:stop], schemas[start]))
            start = stop
    return tuple(batches)


def _rows(
    records: Sequence[ImageRecord], embeddings: NDArray[np.float32], schema: tuple[tuple[str, pa.DataType], ...]
) -> pa.RecordBatch:
    dimension = embeddings.shape[1]
    values = pa.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
    columns = {
        "key": pa.array([record.key for record in records], pa.binary()),
        "embedding": pa.FixedSizeListArray.from_arrays(values, dimension),
    }
    for name, kind in schema:
        columns[name] = pa.array([record.features[name].value for record in records], kind)
    return pa.RecordBatch.from_pydict(columns)


def encode_rows(rows: pa.RecordBatch) -> list[bytes]:
    """Returns each row of `EmbeddingBatch.rows` as a serialized `tf.train.Example`.

    The features: `key` (one bytes value), `embedding` (D float values), and the copied features with their names and
    types. Integers and booleans become int64, floating-point numbers float, texts bytes; a null has no feature.

    Raises:
      UsageError: a copied column has a type that an Example cannot hold, or an integer outside int64.
    """
    arrays = []
    for name in rows.schema.names:
        column = rows.column(name)
        if name == "key":
            column = pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), column)
        elif name == "embedding":
            dimension = column.type.list_size
            offsets = np.arange(len(column) + 1, dtype=np.int32) * dimension
            column = pa.ListArray.from_arrays(pa.array(offsets), column.flatten())
        else:
            column = _as_lists(name, column)
        arrays.append(column)
    return _encoder().encode(pa.RecordBatch.from_arrays(arrays, rows.schema.names))


def _as_lists(name: str, column: pa.Array) -> pa.ListArray:
    """Returns a copied column as lists of values that an Example can hold."""
    is_list = any(test(column.type) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
    values = column.type.value_type if is_list else column.type
    target = next((kind for kind, tests in _EXAMPLE_TYPES.items() if any(test(values) for test in tests)), None)
    if target is None:
        raise UsageError(
            f"--passthrough copies '{name}', whose type {column.type} a TFRecord cannot hold; leave it out, or write "
            "--output_format=parquet"
        )
    try:
        if is_list:
            return column.cast(pa.list_(target))
        offsets = np.concatenate([[0], np.cumsum(column.is_valid().to_numpy(zero_copy_only=False))]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), column.drop_null().cast(target))
        return pc.if_else(column.is_valid(), lists, pa.scalar(None, lists.type)) if column.null_count else lists
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"--passthrough copies '{name}', which has a value that a TFRecord cannot hold ({error}); leave it out, or "
            "write --output_format=parquet"
        ) from error


@functools.cache
def _encoder() -> Encoder:
    return make_encoder()


def decode_rows(examples: Sequence[bytes]) -> tuple[pa.RecordBatch, ...]:
    """Returns the rows of serialized output records: the inverse of `encode_rows`.

    Raises:
      ValueError: a record does not have exactly one key and one embedding.
    """
    records, embeddings = [], []
    for data in examples:
        try:
            features = _example_class().FromString(data).features.feature
        except message.DecodeError:
            raise ValueError(f"a record's {len(data)} bytes are not a tf.train.Example") from None
        key = features["key"].bytes_list.value
        vector = features["embedding"].float_list.value
        if len(key) != 1 or not vector:
            raise ValueError("a record has no key or no embedding")
        records.append(ImageRecord(key[0], "", b"", _copied(features, None, ("*",))))
        embeddings.append(np.asarray(vector, np.float32))
    return embedding_rows(records, np.stack(embeddings)) if records else ()
