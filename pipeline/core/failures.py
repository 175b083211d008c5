"""Failures: records without an embedding, with the stage and the reason; and damaged images with an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.json import from_json, to_json_line
from pipeline.core.keys import key_to_bytes, key_to_text

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
    "http_400",
    "http_401",
    "http_403",
    "http_404",
    "http_410",
    "http_429",
    "http_451",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_status",  # any other status
    "http_timeout",
    "http_connection",
    "http_redirects",
    "http_invalid",
    "http_private_address",
]

FAILURE_REASONS: tuple[str, ...] = get_args(FailureReason)


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
class DamagedImage:
    """One record with an embedding of a damaged image: a part of the pixels may be missing or wrong.

    Attributes:
      key: the record's key, as in its row.
      source: origin of the bytes, as in a `Failure`.
      message: one line for people.
    """

    key: bytes
    source: str
    message: str

    def to_json(self) -> str:
        """Returns the record as one line of JSON, without the line's end; keys are encoded as in `Failure.to_json`."""
        return to_json_line(DamagedLine(key_to_text(self.key), self.source, self.message))

    @classmethod
    def from_json(cls, line: str) -> DamagedImage:
        """Parses a line that `to_json` wrote.

        Raises:
          ValueError: the line holds no damaged image.
        """
        found = from_json(DamagedLine, line)
        return cls(key_to_bytes(found.key), found.source, found.message)


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A damaged image in its JSON form: the key is text."""

    key: str
    source: str
    message: str


@dataclass(frozen=True, slots=True)
class FailureLine:
    """A failure in its JSON form: the key is text."""

    key: str
    source: str
    stage: FailureStage
    reason: FailureReason
    message: str
