"""The frozen, typed records that the stages exchange. This module imports neither TensorFlow nor Beam."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline.core.failures import Failure

FeatureKind = Literal["bytes", "float", "int64"]
_ADDRESS = re.compile(r"(.*)@(\d+)(?:-(\d+))?", re.DOTALL)


def key_to_text(key: bytes) -> str:
    """Returns a key as text; bytes outside UTF-8 become lone surrogates, which `key_to_bytes` reverts."""
    return key.decode("utf-8", "surrogateescape")


def key_to_bytes(text: str) -> bytes:
    """Returns the key of a text, such as a file name: its bytes on disk."""
    return text.encode("utf-8", "surrogateescape")


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


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One encoded image, its key and its source.

    Attributes:
      key: identifies the image in the output; any bytes, usually UTF-8.
      source: origin of the bytes, for people: `path`, or `path@offset` for a TFRecord.
      image: the encoded image (JPEG, PNG, ...).
      features: the features that are copied to the output, by name.
    """

    key: bytes
    source: str
    image: bytes
    features: Mapping[str, Feature] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """One record without an embedding, and the reason.

    Attributes:
      key: the record's key, or the address of its bytes if no key could be read.
      source: origin of the bytes: `path`, `path@offset`, or `path@start-stop` for a damaged range.
      stage: the stage that failed.
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

        Bytes of the key outside UTF-8 appear as lone surrogates of Python's `surrogateescape` handler (`\udc80` to
        `\udcff`); `from_json` restores them.
        """
        return to_json_line(FailureLine(key_to_text(self.key), self.source, self.stage, self.reason, self.message))

    @classmethod
    def from_json(cls, line: str) -> Failure:
        """Parses a line that `to_json` wrote.

        Raises:
          ValueError: the line holds no failure.
        """
        found = from_json(FailureLine, line)
        return cls(key_to_bytes(found.key), found.source, found.stage, found.reason, found.message)


@dataclass(frozen=True, slots=True)
class FailureLine:
    """A failure in its JSON form: the key is text."""

    key: str
    source: str
    stage: FailureStage
    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """The results of a few consecutive records.

    Attributes:
      rows: one row for each embedded record, in input order. Columns: `key` (binary), `embedding`
        (fixed_size_list<float32>[D]) and one list column (binary, float32 or int64) for each copied feature.
        Consecutive rows with the same features share a record batch: the schema names exactly the features of
        its rows.
      failures: the records that have no row.
      sources: `ImageRecord.source` of each row; empty if unknown.
    """

    rows: tuple[pa.RecordBatch, ...]
    failures: tuple[Failure, ...]
    sources: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Number of embedded records."""
        return sum(batch.num_rows for batch in self.rows)
