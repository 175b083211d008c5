"""Writing the files of a wave: rows and failures into staged files, staged files into a committed wave."""

from __future__ import annotations

import datetime
import gzip
import io
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from pipeline import storage
from pipeline.dataset import (
    STAGING_NAME,
    InputEntry,
    Manifest,
    OutputEntry,
    ShardKind,
    commit,
    shard_path,
)
from pipeline.examples import encode_rows
from pipeline.records import EmbeddingBatch
from pipeline.settings import Compression
from pipeline.tfrecord import frame

SHARD_BYTES = 256 << 20
"""Size at which a file is closed and the next one begun."""
_GZIP_LEVEL = 1  # the bits of floats hardly compress; more effort gains nothing


@dataclass(frozen=True, slots=True)
class StagedShard:
    """A complete file of a wave that is not yet committed.

    Attributes:
      path: where it is.
      kind: `embeddings` or `failures`.
      first_key: the key of its first row; orders the files of a wave.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes.
      rows: number of records in it.
      reasons: the number of failures by reason.
    """

    path: str
    kind: ShardKind
    first_key: bytes
    size_bytes: int
    crc32c: int
    rows: int
    reasons: tuple[tuple[str, int], ...] = ()


class _CountingFile(io.RawIOBase):
    """Passes bytes on to a file and keeps their number and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = 0
        self.crc32c = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._file.write(data)
        self.size_bytes += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, bytes(data))
        return len(data)


class _ShardWriter:
    """Writes one staged file."""

    def __init__(self, directory: str, kind: ShardKind, compression: Compression, first_key: bytes) -> None:
        self._path = storage.join(directory, f"{kind}-{uuid.uuid4().hex}")
        self._kind = kind
        self._first_key = first_key
        self._file = storage.create(self._path)
        self._counting = _CountingFile(self._file)
        self._rows = 0
        self._reasons: Counter[str] = Counter()
        # Without a time stamp, so that equal rows make equal files.
        self._gzip = gzip.GzipFile("", "wb", _GZIP_LEVEL, self._counting, mtime=0) if compression == "gzip" else None

    @property
    def size_bytes(self) -> int:
        return self._counting.size_bytes

    def write(self, data: bytes, rows: int) -> None:
        (self._gzip or self._counting).write(data)
        self._rows += rows

    def count_reason(self, reason: str) -> None:
        self._reasons[reason] += 1

    def close(self) -> StagedShard:
        if self._gzip is not None:
            self._gzip.close()
        storage.close_durably(self._file)
        counted = self._counting
        reasons = tuple(sorted(self._reasons.items()))
        return StagedShard(
            self._path, self._kind, self._first_key, counted.size_bytes, counted.crc32c, self._rows, reasons
        )

    def abandon(self) -> None:
        self._file.close()


class WaveWriter:
    """Writes the rows and failures of one stream of batches into staged files of a wave.

    Files that are begun but not finished, because the work on them failed and is tried again, stay in
    the staging directory, which no reader looks at.
    """

    def __init__(self, output: str, wave: str, compression: Compression) -> None:
        self._directory = storage.join(output, STAGING_NAME, wave)
        self._compression = compression
        self._embeddings: _ShardWriter | None = None
        self._failures: _ShardWriter | None = None

    def add(self, batch: EmbeddingBatch) -> list[StagedShard]:
        """Writes a batch; returns the file that it filled, if it filled one."""
        for rows in batch.rows:
            if self._embeddings is None:
                first_key = rows.column("key")[0].as_py()
                self._embeddings = _ShardWriter(self._directory, "embeddings", self._compression, first_key)
            self._embeddings.write(b"".join(map(frame, encode_rows(rows))), rows.num_rows)
        for failure in batch.failures:
            if self._failures is None:
                self._failures = _ShardWriter(self._directory, "failures", "none", failure.key)
            self._failures.write(f"{failure.to_json()}\n".encode(), 1)
            self._failures.count_reason(failure.reason)
        if self._embeddings is not None and self._embeddings.size_bytes >= SHARD_BYTES:
            staged, self._embeddings = self._embeddings.close(), None
            return [staged]
        return []

    def close(self) -> list[StagedShard]:
        """Finishes the files that are open and returns them."""
        staged = [writer.close() for writer in (self._embeddings, self._failures) if writer is not None]
        self._embeddings = self._failures = None
        return staged

    def abandon(self) -> None:
        """Closes the files that are open without finishing them."""
        for writer in (self._embeddings, self._failures):
            if writer is not None:
                writer.abandon()
        self._embeddings = self._failures = None


def commit_wave(
    output: str,
    wave: str,
    inputs: tuple[InputEntry, ...],
    staged: Iterable[StagedShard],
    *,
    compression: Compression,
    started: datetime.datetime,
    versions: Mapping[str, str],
) -> Manifest:
    """Gives staged files their names in the data set and writes the manifest that makes them count.

    Doing it again after an interruption, with the same files, comes to the same end.

    Raises:
      OSError: a file cannot be moved or the manifest cannot be written; the wave is then not committed.
    """
    outputs: list[OutputEntry] = []
    reasons: Counter[str] = Counter()
    extensions: dict[ShardKind, str] = {
        "embeddings": ".tfrecord.gz" if compression == "gzip" else ".tfrecord",
        "failures": ".jsonl",
    }
    staged = sorted(staged, key=lambda shard: (shard.first_key, shard.path))
    for kind, extension in extensions.items():
        shards = [shard for shard in staged if shard.kind == kind]
        for index, shard in enumerate(shards):
            name = shard_path(kind, wave, index, len(shards), extension)
            target = storage.join(output, name)
            if storage.exists(shard.path) or not storage.exists(target):
                storage.rename(shard.path, target)
            outputs.append(OutputEntry(name, kind, shard.size_bytes, f"{shard.crc32c:08x}", shard.rows))
            reasons.update(dict(shard.reasons))
    manifest = Manifest(
        wave=wave,
        inputs=inputs,
        outputs=tuple(outputs),
        embedded=sum(entry.rows for entry in outputs if entry.kind == "embeddings"),
        failed=sum(entry.rows for entry in outputs if entry.kind == "failures"),
        failures_by_reason=dict(sorted(reasons.items())),
        started=started.isoformat(),
        seconds=round((datetime.datetime.now(datetime.timezone.utc) - started).total_seconds(), 3),
        versions=versions,
    )
    commit(output, manifest)
    storage.delete_directory(storage.join(output, STAGING_NAME, wave))
    return manifest
