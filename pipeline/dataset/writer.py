"""Writing a bundle: its rows to the sinks, its failures and damaged images to files, and its counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline.core.failures import DamagedImage, Failure
from pipeline.core.records import Address, EmbeddingBatch
from pipeline.dataset.columns import TableColumns, table_sink
from pipeline.dataset.sinks.base import RowsWriter, Sink, SinkSettings, StagedShard
from pipeline.dataset.sinks.parquet_schema import without_times
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.staged_file import StagedFile

_REMEMBERED_VECTORS = 1 << 16
"""Number of vectors that are remembered to find duplicates."""
_LINES_FILE_BYTES = 32 << 20
"""Size at which a file of failures or damaged images is closed and the next begins."""


@dataclass(frozen=True)
class BundleCounts:
    """The counts of a bundle.

    Attributes:
      embedded: number of rows.
      reasons: number of failures by reason.
      inputs: number of records by file of records.
      zero_vectors: number of rows whose vector is all zeros.
      duplicate_vectors: number of rows whose vector is identical, to the bit, to that of a recent row.
      damaged: number of rows whose image is damaged.
    """

    embedded: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, int] = field(default_factory=dict)
    zero_vectors: int = 0
    duplicate_vectors: int = 0
    damaged: int = 0

    @classmethod
    def total(cls, counts: Iterable[BundleCounts]) -> BundleCounts:
        """Returns the sums over bundles."""
        embedded = zero_vectors = duplicate_vectors = damaged = 0
        reasons: Counter[str] = Counter()
        inputs: Counter[str] = Counter()  # updated in place: a wave may have many bundles and many files
        for item in counts:
            embedded += item.embedded
            reasons.update(item.reasons)
            inputs.update(item.inputs)
            zero_vectors += item.zero_vectors
            duplicate_vectors += item.duplicate_vectors
            damaged += item.damaged
        return cls(embedded, reasons, inputs, zero_vectors, duplicate_vectors, damaged)


@dataclass(frozen=True)
class StagedBundle:
    """A written, but uncommitted bundle.

    Attributes:
      shards: its shards.
      counts: of its records.
      columns: the schema of its copied columns in a table, serialized.
    """

    shards: tuple[StagedShard, ...]
    counts: BundleCounts
    columns: bytes


class BundleWriter:
    """Writes the rows and failures of one bundle to staged shards of a wave.

    If the bundle fails and is retried, its unfinished shards stay in the staging directory, which readers ignore.
    """

    def __init__(self, directory: LockedDirectory, wave: str, sinks: Sequence[Sink], settings: SinkSettings) -> None:
        """Prepares to write.

        Args:
          directory: the data set.
          wave: name of the wave.
          sinks: the sinks; each sink writes all rows.
          settings: the settings of the sinks.
        """
        self._sinks = sinks
        self._table_sink = table_sink(sinks)
        self._rows = [sink.stage(directory, wave, settings) for sink in sinks]
        self._failures = _LinesWriter(directory, wave, "failures")
        self._damaged = _LinesWriter(directory, wave, "damaged")
        self._writers: list[RowsWriter | _LinesWriter] = [*self._rows, self._failures, self._damaged]
        self._counter = _Counter()
        self._columns = TableColumns(self._table_sink.stored_type)
        self._shards: list[StagedShard] = []

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def add(self, batch: EmbeddingBatch) -> None:
        """Writes a batch."""
        start = 0
        for rows in batch.rows:
            if self._is_for(self._sinks[0], batch):  # the others get the same rows
                self._counter.count_rows(rows, batch.sources[start : start + rows.num_rows])
            start += rows.num_rows
            if self._is_for(self._table_sink, batch):
                self._columns.add(rows)
            for sink, writer in zip(self._sinks, self._rows, strict=True):
                if self._is_for(sink, batch):
                    self._shards += writer.write(rows if sink.has_times or not batch.formats else without_times(rows))
        for failure in batch.failures:
            self._counter.count_failure(failure)
            self._shards += self._failures.write(failure)
        for damaged in batch.damaged:
            self._counter.count_damaged()
            self._shards += self._damaged.write(damaged)

    @staticmethod
    def _is_for(sink: Sink, batch: EmbeddingBatch) -> bool:
        return not batch.formats or sink.name in batch.formats

    def close(self) -> StagedBundle:
        """Finishes the open shards; returns all shards of the bundle."""
        for writer in self._writers:
            self._shards += writer.close()
        return StagedBundle(tuple(self._shards), self._counter.counts(), bytes(self._columns.schema.serialize()))

    def abandon(self) -> None:
        """Closes the open shards without finishing them."""
        for writer in self._writers:
            writer.abandon()


class _LinesWriter:
    """Writes failures or damaged images as JSON lines into staged files."""

    def __init__(self, directory: LockedDirectory, wave: str, kind: Literal["failures", "damaged"]) -> None:
        self._directory = directory
        self._wave = wave
        self._kind: Literal["failures", "damaged"] = kind
        self._first_key = b""
        self._file: StagedFile | None = None

    def write(self, item: Failure | DamagedImage) -> list[StagedShard]:
        """Writes a line; returns the file if it is full."""
        if self._file is None:
            self._file = StagedFile(self._directory, self._wave, self._kind)
            self._first_key = item.key
        self._file.file.write(f"{item.to_json()}\n".encode())
        self._file.rows += 1
        return self.close() if self._file.size_bytes >= _LINES_FILE_BYTES else []

    def close(self) -> list[StagedShard]:
        if self._file is None:
            return []
        written, self._file = self._file.close(), None
        return [StagedShard.of(written, self._kind, "jsonl", ".jsonl", self._first_key)]

    def abandon(self) -> None:
        if self._file is not None:
            self._file.abandon()
        self._file = None


class _Counter:
    def __init__(self) -> None:
        self._embedded = 0
        self._reasons: Counter[str] = Counter()
        self._inputs: Counter[str] = Counter()
        self._zero_vectors = 0
        self._duplicate_vectors = 0
        self._damaged = 0
        self._digests: set[bytes] = set()

    def count_rows(self, rows: pa.RecordBatch, sources: tuple[str, ...]) -> None:
        self._embedded += rows.num_rows
        self._inputs.update(_record_files(sources))
        vectors = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
        self._zero_vectors += int(rows.num_rows - vectors.any(axis=1).sum())
        for vector in vectors:
            digest = hashlib.blake2b(vector.tobytes(), digest_size=8).digest()
            self._duplicate_vectors += digest in self._digests
            self._digests.add(digest)
        if len(self._digests) > _REMEMBERED_VECTORS:
            self._digests.clear()

    def count_failure(self, failure: Failure) -> None:
        self._reasons[failure.reason] += 1
        # A file of records that could not be opened is one failure, whose source is the file.
        self._inputs.update(list(_record_files((failure.source,))) or [failure.source])

    def count_damaged(self) -> None:
        self._damaged += 1

    def counts(self) -> BundleCounts:
        return BundleCounts(
            self._embedded,
            dict(self._reasons),
            dict(self._inputs),
            self._zero_vectors,
            self._duplicate_vectors,
            self._damaged,
        )


def _record_files(sources: tuple[str, ...]) -> Iterator[str]:
    """Yields the file of records of each source `path@offset`; skips image files."""
    for source in sources:
        address = Address.parse(source)
        if address is not None:
            yield address.path
