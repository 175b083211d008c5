"""The frozen, typed records that the stages exchange. This module imports neither TensorFlow nor Beam."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline.core.failures import DamagedImage, Failure

FeatureKind = Literal["bytes", "float", "int64"]
_LIST_TYPES = {"bytes": pa.list_(pa.binary()), "float": pa.list_(pa.float32()), "int64": pa.list_(pa.int64())}
_ADDRESS = re.compile(r"(.*)@(\d+)(?:-(\d+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """Position of bytes in a file of records: `path@start` for a record, `path@start-stop` for a range.

    Attributes:
      path: path of the file, or its name in a key.
      start: offset of the first byte; for a compressed file, in the uncompressed bytes.
      stop: end offset (exclusive); None for the record at `start`.
    """

    path: str
    start: int
    stop: int | None

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """Returns the parsed address, or None if the text is none."""
        found = _ADDRESS.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3]) if found[3] else None) if found else None


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a `tf.train.Example` that is copied to the output.

    Attributes:
      kind: the list of `tf.train.Feature` that holds the values.
      values: bytes, floats (float32 values) or integers (int64 range), according to `kind`.
    """

    kind: FeatureKind
    values: tuple[bytes, ...] | tuple[float, ...] | tuple[int, ...]

    @property
    def type(self) -> pa.DataType:
        """The type of its column in the output: a list."""
        return _LIST_TYPES[self.kind]

    @property
    def value(self) -> object:
        """Its value in that column."""
        return self.values


@dataclass(frozen=True, slots=True)
class ColumnValue:
    """One value of a typed column that is copied to the output.

    Attributes:
      type: the type of the column.
      value: the value as Arrow's `to_pylist` returns it; None for null.
    """

    type: pa.DataType
    value: object


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One encoded image, its key and its source.

    Attributes:
      key: identifies the image in the output; any bytes, usually UTF-8.
      source: origin of the bytes, for people: `path`, or `path@offset` for a record of a file.
      image: the encoded image (JPEG, PNG, ...).
      features: the features that are copied to the output, by name.
      damage: after decoding, what is damaged in the image, in one line for people; empty if nothing is known.
    """

    key: bytes
    source: str
    image: bytes
    features: Mapping[str, Feature | ColumnValue] = field(default_factory=dict)
    damage: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """The results of a few consecutive records.

    Attributes:
      rows: one row for each embedded record, in input order. Columns: `key` (binary), `embedding`
        (fixed_size_list<float32>[D]) and one column for each copied feature: a list of binary, float32 or int64 for
        a `Feature`, the column's own type for a `ColumnValue`.
        Consecutive rows with the same features share a record batch: the schema names exactly the features of
        its rows.
      failures: the records that have no row.
      sources: `ImageRecord.source` of each row; empty if unknown.
      damaged: the records that have a row although their image is damaged.
      formats: names of the sinks that write the rows, if not all do: a compaction writes each format from its own
        files. The rows may then have the column `event_timestamp`: when they were committed.
    """

    rows: tuple[pa.RecordBatch, ...]
    failures: tuple[Failure, ...]
    sources: tuple[str, ...]
    damaged: tuple[DamagedImage, ...] = ()
    formats: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of embedded records."""
        return sum(batch.num_rows for batch in self.rows)
