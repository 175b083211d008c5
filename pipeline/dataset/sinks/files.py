"""Sinks whose shards are single files: staged with size and checksum, published by a rename."""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from pipeline.dataset.sinks.base import RowsWriter, ShardKind, Sink, SinkSettings, StagedShard
from pipeline.storage import filesystem
from pipeline.storage.checksum import extend_crc32c

SHARD_BYTES = 256 << 20
"""Size at which a file is closed and the next file begins."""
MAX_OPEN_FILES = 4
"""Open files of one format per bundle, if features have several types."""


class Encoder(Protocol):
    """Writes rows to a file in one format."""

    def accepts(self, rows: pa.RecordBatch) -> bool:
        """Returns whether the file can hold these rows."""
        ...

    def write(self, rows: pa.RecordBatch) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Writes buffered rows and the end of the file."""
        ...


class FileSink(Sink, Protocol):
    """A sink of files. A subclass defines `name`, `encoder` and `read`, and `extension` if it differs from `.name`."""

    def extension(self, settings: SinkSettings) -> str:
        """Returns the file name extension."""
        return f".{self.name}"

    def encoder(self, file: BinaryIO, settings: SinkSettings) -> Encoder:
        """Returns an encoder that writes rows to a new file."""
        ...

    def stage(self, directory: str, settings: SinkSettings) -> RowsWriter:
        """See `Sink`."""
        return FileRowsWriter(self, directory, settings)

    def publish(self, staged: str, target: str) -> None:
        """See `Sink`."""
        publish_file(staged, target)

    def discard(self, paths: Iterable[str]) -> None:
        """See `Sink`."""
        filesystem.delete(paths)


def publish_file(staged: str, target: str) -> None:
    """Moves a staged file to its name in the data set; idempotent.

    Raises:
      OSError: the file cannot be moved.
    """
    if filesystem.exists(staged) or not filesystem.exists(target):
        filesystem.rename(staged, target)


class _CountingFile(io.RawIOBase):
    """Passes bytes to a file and keeps their number and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._abandoned = False
        self.size_bytes = 0
        self.crc32c = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self._abandoned:
            return len(data)
        self._file.write(data)
        self.size_bytes += len(data)
        self.crc32c = extend_crc32c(self.crc32c, data)
        return len(data)

    def abandon(self) -> None:
        """Drops later writes: the encoder of an unfinished file writes the file's end when it is garbage-collected."""
        self._abandoned = True


class StagedFile:
    """An open file in a staging directory.

    Attributes:
      file: the stream to write to.
      size_bytes: number of bytes written.
      rows: number of records in the file; the caller counts them.
    """

    def __init__(self, directory: str, kind: ShardKind, first_key: bytes) -> None:
        """Creates the file; its name is unique."""
        self._path = filesystem.join(directory, f"{kind}-{uuid.uuid4().hex}")
        self._kind = kind
        self._first_key = first_key
        self._raw = filesystem.create(self._path)
        self._counting = _CountingFile(self._raw)
        self.file = cast(BinaryIO, self._counting)
        self.rows = 0

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._counting.size_bytes

    def close(self, shard_format: str, extension: str) -> StagedShard:
        """Flushes the file to the device and closes it; returns the complete shard."""
        filesystem.close_durably(self._raw)
        counted = self._counting
        return StagedShard(
            path=self._path,
            kind=self._kind,
            format=shard_format,
            extension=extension,
            first_key=self._first_key,
            size_bytes=counted.size_bytes,
            crc32c=counted.crc32c,
            rows=self.rows,
        )

    def abandon(self) -> None:
        """Closes the file without finishing it."""
        self._counting.abandon()
        with contextlib.suppress(OSError):  # the buffered bytes are not needed
            self._raw.close()


@dataclass(frozen=True)
class _OpenFile:
    staged: StagedFile
    encoder: Encoder


class FileRowsWriter:
    """Writes rows in one format to one or more staged files.

    Rows that no open file accepts, because a feature has another type, begin a new file.
    """

    def __init__(self, sink: FileSink, directory: str, settings: SinkSettings) -> None:
        self._sink = sink
        self._directory = directory
        self._settings = settings
        self._open: list[_OpenFile] = []

    def write(self, rows: pa.RecordBatch) -> list[StagedShard]:
        """See `RowsWriter`."""
        full = []
        file = next((file for file in self._open if file.encoder.accepts(rows)), None)
        if file is None:
            if len(self._open) == MAX_OPEN_FILES:
                full.append(self._close(self._open[0]))
            file = self._create(rows.column("key")[0].as_py())
        file.encoder.write(rows)
        file.staged.rows += rows.num_rows
        if file.staged.size_bytes >= SHARD_BYTES:
            full.append(self._close(file))
        return full

    def close(self) -> list[StagedShard]:
        """See `RowsWriter`."""
        return [self._close(file) for file in tuple(self._open)]

    def abandon(self) -> None:
        """See `RowsWriter`."""
        for file in self._open:
            file.staged.abandon()
        self._open.clear()

    def _create(self, first_key: bytes) -> _OpenFile:
        staged = StagedFile(self._directory, "embeddings", first_key)
        file = _OpenFile(staged, self._sink.encoder(staged.file, self._settings))
        self._open.append(file)
        return file

    def _close(self, file: _OpenFile) -> StagedShard:
        file.encoder.close()
        staged = file.staged.close(self._sink.name, self._sink.extension(self._settings))
        self._open.remove(file)
        return staged
