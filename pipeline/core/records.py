"""The records that pass between the stages.

Frozen and typed; nothing here imports TensorFlow or Beam.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import pyarrow as pa

from pipeline.core.json import from_json, to_json_line

FailureStage = Literal["read", "decode", "embed"]
FailureReason = Literal[
    "read_error",
    "corrupt_record",
    "missing_feature",
    "empty",
    "not_an_image",
    "unsupported_format",
    "truncated",
    "too_large",
    "nonfinite",
]

FeatureKind = Literal["bytes", "float", "int64"]
FAILURE_REASONS: tuple[str, ...] = get_args(FailureReason)
_ADDRESS = re.compile(r"(.*)@(\d+)(?:-(\d+))?", re.DOTALL)


def key_to_text(key: bytes) -> str:
    """Returns a key as text; bytes that are not UTF-8 become lone surrogates, which `key_to_bytes` turns back."""
    return key.decode("utf-8", "surrogateescape")


def key_to_bytes(text: str) -> bytes:
    """Returns the key that a text, such as a file's name, stands for: the bytes that it has on disk."""
    return text.encode("utf-8", "surrogateescape")


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
class Failure:
    """One record that has no embedding, and why.

    Attributes:
      key: the record's key, or the address of its bytes where no key could be read.
      source: where the bytes came from: `path`, `path@offset`, or `path@start-stop` for a damaged range.
      stage: the stage that gave up.
      reason: the kind of failure, from a closed list.
      message: one line for people.
    """

    key: bytes
    source: str
    stage: FailureStage
    reason: FailureReason
    message: str

    def to_json(self) -> str:
        r"""Returns the failure as one line of JSON, without the line's end.

        Bytes of the key that are not UTF-8 appear as the lone surrogates of Python's
        `surrogateescape` handler (`\udc80` to `\udcff`), so that `from_json` gives them back.
        """
        return to_json_line(FailureLine(key_to_text(self.key), self.source, self.stage, self.reason, self.message))

    @classmethod
    def from_json(cls, line: str) -> Failure:
        """Returns the failure that `to_json` wrote as `line`.

        Raises:
          ValueError: the line holds no failure.
        """
        found = from_json(FailureLine, line)
        return cls(key_to_bytes(found.key), found.source, found.stage, found.reason, found.message)


@dataclass(frozen=True, slots=True)
class FailureLine:
    """A failure as JSON holds it: its key as text."""

    key: str
    source: str
    stage: FailureStage
    reason: FailureReason
    message: str


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
