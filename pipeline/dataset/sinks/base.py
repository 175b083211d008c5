"""What a sink is: it stages rows, publishes what was staged, discards either, and reads rows back."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from pipeline.core.errors import UsageError
from pipeline.core.settings import Compression
from pipeline.dataset.sinks.registry import SINKS

ShardKind = Literal["embeddings", "failures"]


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What the shards of a wave have in common.

    Attributes:
      compression: of formats that leave it open.
      started: when the wave began, UTC; the rows' time stamp in formats that have one.
      spec_json: the data set's spec, for formats that hold metadata.
    """

    compression: Compression
    started: datetime.datetime
    spec_json: bytes


@dataclass(frozen=True, slots=True)
class StagedShard:
    """A complete shard of a wave that is not committed.

    Attributes:
      path: where it is.
      kind: `embeddings` or `failures`.
      format: the sink's name, or `jsonl` for failures.
      extension: the end of its name.
      first_key: the key of its first row; orders the shards of a wave.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes.
      rows: the number of records in it.
    """

    path: str
    kind: ShardKind
    format: str
    extension: str
    first_key: bytes
    size_bytes: int
    crc32c: int
    rows: int


class RowsWriter(Protocol):
    """Writes one stream of rows to staged shards."""

    def write(self, rows: pa.RecordBatch) -> list[StagedShard]:
        """Writes rows; returns the shards that are full now.

        Args:
          rows: columns `key` (binary), `embedding` (fixed_size_list<float32>[D]) and one list column for each
            feature that is passed through. Batches may have different features.
        """
        ...

    def close(self) -> list[StagedShard]:
        """Finishes the open shards and returns them."""
        ...

    def abandon(self) -> None:
        """Closes the open shards without finishing them."""
        ...


class Sink(Protocol):
    """A format in which a data set holds its rows. It can be pickled.

    A shard is one path: a file, or whatever the sink makes there.

    Attributes:
      name: the value of `--output_format`; a shard's extension begins with it.
    """

    name: str

    def stage(self, directory: str, settings: SinkSettings) -> RowsWriter:
        """Returns a writer of shards below a staging directory."""
        ...

    def publish(self, staged: str, target: str) -> None:
        """Gives a staged shard its name in the data set. To do it again comes to the same end.

        Raises:
          OSError: the shard cannot be moved.
        """
        ...

    def discard(self, paths: Iterable[str]) -> None:
        """Removes shards, staged or published; missing ones are ignored.

        Raises:
          OSError: a shard cannot be removed.
        """
        ...

    def read(self, path: str) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a shard, with the columns that `RowsWriter.write` got.

        Raises:
          OSError: the shard cannot be read.
          ValueError: it is damaged.
        """
        ...


def make_sinks(formats: Iterable[str | Sink]) -> tuple[Sink, ...]:
    """Returns sinks from their names; a sink stands for itself.

    Raises:
      UsageError: there is none, or no sink has such a name.
    """
    sinks = tuple(SINKS.load(item)() if isinstance(item, str) else item for item in formats)
    if not sinks:
        raise UsageError(f"no output format was given; expected some of {', '.join(SINKS.names)}")
    return sinks


def find_sink(name: str, sinks: Sequence[Sink] = ()) -> Sink:
    """Returns the sink of a format: one of `sinks`, or a registered one.

    Raises:
      ValueError: the format is unknown.
    """
    for sink in sinks:
        if sink.name == name:
            return sink
    if name not in SINKS.paths:
        raise ValueError(f"format {name!r} is unknown, expected one of {', '.join(SINKS.names)}; pass its sink")
    found: Sink = SINKS.load(name)()
    return found
