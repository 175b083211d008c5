"""The records that pass between the stages.

Frozen and typed; nothing here imports TensorFlow or Beam.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline.core.failures import Failure

FeatureKind = Literal["bytes", "float", "int64"]
_ADDRESS = re.compile(r"(.*)@(\d+)(?:-(\d+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where in a file of records some bytes are: `path@start` for a record, `path@start-stop` for a range.

    Attributes:
      path: of the file, or its name in a key.
      start: offset of the first byte; in a compressed file, of the uncompressed bytes.
      stop: one past the last; None for the record at `start`.
    """

    path: str
    start: int
    stop: int | None

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """Returns the address that a text is, or None."""
        found = _ADDRESS.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3]) if found[3] else None) if found else None


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a `tf.train.Example` that is copied to the output.

    Attributes:
      kind: which of the three lists of `tf.train.Feature` holds the values.
      values: bytes, floats (float32 values) or integers (int64 range), after `kind`.
    """

    kind: FeatureKind
    values: tuple[bytes, ...] | tuple[float, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One encoded image and what identifies it.

    Attributes:
      key: names the image in the output; any bytes, UTF-8 by custom.
      source: where the bytes came from, for people: `path`, or `path@offset` for a TFRecord.
      image: the encoded image (JPEG, PNG, ...).
      features: the features that are copied to the output, by name.
    """

    key: bytes
    source: str
    image: bytes
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """What became of a few consecutive records.

    Attributes:
      rows: one row for each embedded record, in input order. Columns: `key` (binary), `embedding`
        (fixed_size_list<float32>[D]) and one list column (binary, float32 or int64) for each feature
        that was passed through. Neighbours with the same features share a record batch, so the
        schema says exactly which features each row has.
      failures: the records that have no row.
      sources: where each row's image came from, as in `ImageRecord.source`; empty where nobody knows.
    """

    rows: tuple[pa.RecordBatch, ...]
    failures: tuple[Failure, ...]
    sources: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Number of embedded records."""
        return sum(batch.num_rows for batch in self.rows)
