"""The interface of sinks: staging rows, publishing and discarding shards, and reading rows back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from pipeline.core.errors import UsageError
from pipeline.core.settings import Compression
from pipeline.dataset.sinks.registry import SINKS
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.object_store import Move
from pipeline.storage.staged_file import WrittenFile

SCHEMA_NAME = "schema.pbtxt"
"""Name of the file in a data set that describes its TFRecords."""
ShardKind = Literal["embeddings", "failures", "damaged"]


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """The common settings of a wave's shards.

    Attributes:
      compression: for formats with a choice of compression.
      spec_json: the data set's spec, for formats with metadata.
    """

    compression: Compression
    spec_json: bytes


@dataclass(frozen=True, slots=True)
class StagedShard:
    """A complete shard of an uncommitted wave.

    Attributes:
      path: its path in the staging directory.
      kind: `embeddings`, `failures` or `damaged`.
      format: name of the sink, or `jsonl` for failures and damaged images.
      extension: file name extension in the data set.
      first_key: key of its first row; the shards of a wave are sorted by this key.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes.
      rows: number of its records.
      schema: the Arrow schema of its columns, serialized, in formats whose files have one.
    """

    path: str
    kind: ShardKind
    format: str
    extension: str
    first_key: bytes
    size_bytes: int
    crc32c: int
    rows: int
    schema: bytes = b""

    @classmethod
    def of(
        cls,
        written: WrittenFile,
        kind: ShardKind,
        shard_format: str,
        extension: str,
        first_key: bytes,
        schema: bytes = b"",
    ) -> StagedShard:
        """Returns the shard of a single file."""
        size_bytes, crc32c, rows = written.size_bytes, written.crc32c, written.rows
        return cls(written.path, kind, shard_format, extension, first_key, size_bytes, crc32c, rows, schema)


class RowsWriter(Protocol):
    """Writes one stream of rows to staged shards."""

    def write(self, rows: pa.RecordBatch) -> list[StagedShard]:
        """Writes rows; returns the shards that became full.

        Args:
          rows: columns `key` (binary), `embedding` (fixed_size_list<float32>[D]) and one column for each copied
            feature, as in `EmbeddingBatch`. Batches may have different features. If the sink `has_times`, and a row
            is older than the wave, also `event_timestamp`.
        """
        ...

    def close(self) -> list[StagedShard]:
        """Finishes the open shards and returns them."""
        ...

    def abandon(self) -> None:
        """Closes the open shards without finishing them."""
        ...


class Sink(Protocol):
    """An output format for the rows of a data set; can be pickled.

    A shard is one path: a file, or anything else that the sink creates there.

    Attributes:
      name: the value of `--output_format`; a shard's extension begins with it.
      has_times: whether its files hold the time of each row, in the column `event_timestamp`.
    """

    name: str
    has_times: bool = False

    def stage(self, directory: LockedDirectory, wave: str, settings: SinkSettings) -> RowsWriter:
        """Returns a writer of shards below `directory.staged(wave)`."""
        ...

    def unify(self, directory: LockedDirectory, wave: str, shards: Sequence[StagedShard]) -> Sequence[StagedShard]:
        """Returns the shards of a wave, each rewritten if all together must agree, in the same order.

        Deterministic: a second call for the same shards returns equal bytes.

        Raises:
          OSError: a shard cannot be rewritten.
        """
        return shards

    def publish(self, moves: Sequence[Move]) -> None:
        """Moves staged shards to their names in the data set; idempotent: a shard that was moved before is no error.

        Raises:
          OSError: a shard cannot be moved.
        """
        ...

    def discard(self, paths: Iterable[str]) -> None:
        """Removes shards, staged or published; missing ones are ignored.

        Raises:
          OSError: a shard cannot be removed.
        """
        ...

    def read(self, path: str) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a shard, with the columns of `RowsWriter.write`.

        Raises:
          OSError: the shard cannot be read.
          ValueError: the shard is damaged.
        """
        ...

    def read_columns(self, path: str, is_wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
        """Yields the key and some other columns of a shard's rows; raises as `read`.

        Args:
          path: of the shard.
          is_wanted: returns whether to read a column, by its name. In formats that hold a time for each row, there is
            the column `event_timestamp`, too.
        """
        for rows in self.read(path):
            yield rows.select([name for name in rows.schema.names if name == "key" or is_wanted(name)])

    def describe(self, columns: pa.Schema, dimension: int, before: bytes) -> bytes:
        """Returns the contents of `schema.pbtxt` in the data set; empty for formats that it does not describe.

        Args:
          columns: the types of the copied columns of a wave in a table.
          dimension: length of a vector.
          before: the contents for all older waves; empty if there are none.

        Raises:
          ValueError: `before` is damaged.
        """
        return b""

    def stored_type(self, kind: pa.DataType) -> pa.DataType:
        """Returns the type in a table of a copied column whose values have another type before they are written."""
        return kind


def make_sinks(formats: Iterable[str | Sink]) -> tuple[Sink, ...]:
    """Returns the sinks of some formats, each given by its name or as a sink.

    Raises:
      UsageError: the list is empty, or a name is unknown.
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
