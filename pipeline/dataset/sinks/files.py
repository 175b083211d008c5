"""Sinks whose shards are single files: staged with size and checksum, published by a rename."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from pipeline.dataset.sinks.base import RowsWriter, Sink, SinkSettings, StagedShard
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.object_store import Move
from pipeline.storage.staged_file import StagedFile

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

    def schema(self, encoder: Any) -> bytes:
        """Returns the serialized schema of the file that an encoder has written, in formats whose files have one."""
        return b""

    def stage(self, directory: LockedDirectory, wave: str, settings: SinkSettings) -> RowsWriter:
        """See `Sink`."""
        return FileRowsWriter(self, directory, wave, settings)

    def publish(self, moves: Sequence[Move]) -> None:
        """See `Sink`."""
        filesystem.rename_all(moves)

    def discard(self, paths: Iterable[str]) -> None:
        """See `Sink`."""
        filesystem.delete(paths)


@dataclass(frozen=True)
class _OpenFile:
    first_key: bytes
    staged: StagedFile
    encoder: Encoder


class FileRowsWriter:
    """Writes rows in one format to one or more staged files.

    Rows that no open file accepts, because a feature has another type, begin a new file.
    """

    def __init__(self, sink: FileSink, directory: LockedDirectory, wave: str, settings: SinkSettings) -> None:
        self._sink = sink
        self._directory = directory
        self._wave = wave
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
        staged = StagedFile(self._directory, self._wave, "embeddings")
        file = _OpenFile(first_key, staged, self._sink.encoder(staged.file, self._settings))
        self._open.append(file)
        return file

    def _close(self, file: _OpenFile) -> StagedShard:
        file.encoder.close()
        written = file.staged.close()
        self._open.remove(file)
        extension = self._sink.extension(self._settings)
        schema = self._sink.schema(file.encoder)
        return StagedShard.of(written, "embeddings", self._sink.name, extension, file.first_key, schema)
