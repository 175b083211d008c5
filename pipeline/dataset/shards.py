"""Staged files: what a worker writes of a wave before it is committed."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import hashlib
import io
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.records import Address, EmbeddingBatch, Failure
from pipeline.core.settings import TIMESTAMP_COLUMN, Compression, OutputFormat
from pipeline.dataset.metadata import STAGING_NAME, ShardFormat, ShardKind
from pipeline.storage import filesystem
from pipeline.storage.checksum import extend_crc32c
from pipeline.tfrecords.examples import encode_rows
from pipeline.tfrecords.framing import frame

SHARD_BYTES = 256 << 20
"""Size at which a file is closed and the next one begun."""
MAX_OPEN_FILES = 4
"""Files of one format that a bundle writes at a time, where features have several types."""
ROW_GROUP_ROWS = 4096
"""Rows of a Parquet row group: some 20 MB of vectors, enough to read fast and little enough to skip."""
_GZIP_LEVEL = 1  # the bits of floats hardly compress; more effort gains nothing


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """How the files of a wave are written.

    Attributes:
      formats: of the embeddings.
      compression: of TFRecord files.
      started: when the wave began, UTC; the rows' time stamp in Parquet.
      spec_json: the data set's spec, for the metadata of Parquet files.
    """

    formats: tuple[OutputFormat, ...]
    compression: Compression
    started: datetime.datetime
    spec_json: bytes


@dataclass(frozen=True, slots=True)
class StagedShard:
    """A complete file of a wave that is not yet committed.

    Attributes:
      path: where it is.
      kind: `embeddings` or `failures`.
      format: `tfrecord`, `parquet` or `jsonl`.
      extension: of its name.
      first_key: the key of its first row; orders the files of a wave.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes.
      rows: number of records in it.
      reasons: the number of failures by reason.
      inputs: the number of records by TFRecord file that they came from.
      zero_vectors: number of rows whose vector has only zeros.
      duplicate_vectors: number of rows whose vector is, to the bit, that of another row before it in the file.

    Of several formats, which hold the same records, only the first one's files have the last three.
    """

    path: str
    kind: ShardKind
    format: ShardFormat
    extension: str
    first_key: bytes
    size_bytes: int
    crc32c: int
    rows: int
    reasons: tuple[tuple[str, int], ...] = ()
    inputs: tuple[tuple[str, int], ...] = ()
    zero_vectors: int = 0
    duplicate_vectors: int = 0


class _CountingFile(io.RawIOBase):
    """Passes bytes on to a file and keeps their number and checksum."""

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
        """Drops what is still written: encoders of an unfinished file write its end when they are deleted."""
        self._abandoned = True


class _Encoder(Protocol):
    """Writes rows to a file in one format."""

    extension: str

    def accepts(self, rows: pa.RecordBatch) -> bool:
        """Says whether the file can hold these rows."""
        ...

    def write(self, rows: pa.RecordBatch) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Writes what is held back, and the file's end."""
        ...


class _TFRecordEncoder:
    def __init__(self, file: BinaryIO, wave_format: WaveFormat) -> None:
        is_gzip = wave_format.compression == "gzip"
        self.extension = ".tfrecord.gz" if is_gzip else ".tfrecord"
        # Without a time stamp, which would tell apart files that hold the same.
        self._gzip = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) if is_gzip else None
        self._file = self._gzip or file

    def accepts(self, rows: pa.RecordBatch) -> bool:
        return True

    def write(self, rows: pa.RecordBatch) -> None:
        self._file.write(b"".join(map(frame, encode_rows(rows))))

    def close(self) -> None:
        if self._gzip is not None:
            self._gzip.close()


class _ParquetEncoder:
    r"""Columns: `key` (string), `embedding`, the copied features (lists), `event_timestamp`.

    The features of the first row group make the file's columns; rows that lack one have a null there.
    Rows with a feature that has no column there go to another file. Bytes of a key that are not UTF-8
    become `\xNN`, as a Parquet string cannot hold them.
    """

    extension = ".parquet"

    def __init__(self, file: BinaryIO, wave_format: WaveFormat) -> None:
        self._file = file
        self._format = wave_format
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._fields: dict[str, pa.Field] = {}
        self._writer: pq.ParquetWriter | None = None

    def accepts(self, rows: pa.RecordBatch) -> bool:
        for item in rows.schema:
            known = self._fields.get(item.name)
            if (known is None and self._writer is not None) or (known is not None and known.type != item.type):
                return False
        return True

    def write(self, rows: pa.RecordBatch) -> None:
        for item in rows.schema:
            self._fields.setdefault(item.name, item)
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = pa.concat_tables(
            [pa.Table.from_batches([rows]) for rows in self._waiting], promote_options="default"
        ).combine_chunks()
        columns = {name: self._column(table, name) for name in self._fields}
        timestamp = pa.scalar(self._format.started, pa.timestamp("us", tz="UTC"))
        columns[TIMESTAMP_COLUMN] = pa.array([timestamp] * len(table), timestamp.type)
        table = pa.table(columns)
        if self._writer is None:
            schema = table.schema.with_metadata({"spec.json": self._format.spec_json})
            self._writer = pq.ParquetWriter(
                self._file,
                schema,
                compression="zstd",
                use_dictionary=False,
                use_byte_stream_split=["embedding.list.element"],
            )
        self._writer.write_table(table.cast(self._writer.schema), row_group_size=ROW_GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0

    def _column(self, table: pa.Table, name: str) -> Any:
        if name == "key":
            return pa.array([key.decode("utf-8", "backslashreplace") for key in table["key"].to_pylist()], pa.string())
        if name in table.schema.names:
            return table[name]
        return pa.nulls(len(table), self._fields[name].type)


class _ShardWriter:
    """Writes one staged file and counts what goes into it."""

    def __init__(self, directory: str, kind: ShardKind, first_key: bytes) -> None:
        self._path = filesystem.join(directory, f"{kind}-{uuid.uuid4().hex}")
        self._kind = kind
        self._first_key = first_key
        self._file = filesystem.create(self._path)
        self.counting = _CountingFile(self._file)
        self.rows = 0
        self.inputs: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._digests: set[bytes] = set()
        self._vectors = 0
        self._zero_vectors = 0

    def count_vectors(self, rows: pa.RecordBatch) -> None:
        """Counts the rows' vectors that are zero or were there before."""
        vectors = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
        self._zero_vectors += int(np.count_nonzero(~vectors.any(axis=1)))
        self._digests.update(hashlib.blake2b(vector.tobytes(), digest_size=8).digest() for vector in vectors)
        self._vectors += len(vectors)

    def close(self, file_format: ShardFormat, extension: str) -> StagedShard:
        filesystem.close_durably(self._file)
        return StagedShard(
            self._path,
            self._kind,
            file_format,
            extension,
            self._first_key,
            self.counting.size_bytes,
            self.counting.crc32c,
            self.rows,
            tuple(sorted(self.reasons.items())),
            tuple(sorted(self.inputs.items())),
            self._zero_vectors,
            self._vectors - len(self._digests),
        )

    def abandon(self) -> None:
        self.counting.abandon()
        with contextlib.suppress(OSError):  # what is left in its buffer need not reach the disk
            self._file.close()


@dataclass(frozen=True)
class _OpenFile:
    shard: _ShardWriter
    encoder: _Encoder


class _RowsWriter:
    """Writes rows in one format into as many staged files as it takes.

    Rows that no open file can hold, because a feature has another type there, begin one of their own.
    """

    _encoders: dict[OutputFormat, Any] = {"tfrecord": _TFRecordEncoder, "parquet": _ParquetEncoder}  # noqa: RUF012

    def __init__(self, directory: str, file_format: OutputFormat, wave_format: WaveFormat) -> None:
        self._directory = directory
        self._file_format = file_format
        self._is_first = file_format == wave_format.formats[0]
        self._wave_format = wave_format
        self._open: list[_OpenFile] = []

    def write(self, rows: pa.RecordBatch, sources: tuple[str, ...]) -> list[StagedShard]:
        staged = []
        file = next((file for file in self._open if file.encoder.accepts(rows)), None)
        if file is None:
            if len(self._open) == MAX_OPEN_FILES:
                staged.append(self._close(self._open[0]))
            file = self._create(rows.column("key")[0].as_py())
        file.encoder.write(rows)
        file.shard.rows += rows.num_rows
        if self._is_first:
            file.shard.inputs += _record_inputs(sources)
            file.shard.count_vectors(rows)
        if file.shard.counting.size_bytes >= SHARD_BYTES:
            staged.append(self._close(file))
        return staged

    def _create(self, first_key: bytes) -> _OpenFile:
        shard = _ShardWriter(self._directory, "embeddings", first_key)
        file = _OpenFile(shard, self._encoders[self._file_format](cast(BinaryIO, shard.counting), self._wave_format))
        self._open.append(file)
        return file

    def _close(self, file: _OpenFile) -> StagedShard:
        file.encoder.close()
        staged = file.shard.close(self._file_format, file.encoder.extension)
        self._open.remove(file)
        return staged

    def close(self) -> list[StagedShard]:
        return [self._close(file) for file in tuple(self._open)]

    def abandon(self) -> None:
        for file in self._open:
            file.shard.abandon()
        self._open.clear()


class _FailuresWriter:
    """Writes failures as JSON lines into one staged file."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._shard: _ShardWriter | None = None

    def write(self, failure: Failure) -> None:
        if self._shard is None:
            self._shard = _ShardWriter(self._directory, "failures", failure.key)
        self._shard.counting.write(f"{failure.to_json()}\n".encode())
        self._shard.rows += 1
        self._shard.reasons[failure.reason] += 1
        # A file of records that could not be opened is one failure, whose source is the file.
        self._shard.inputs += _record_inputs((failure.source,)) or Counter([failure.source])

    def close(self) -> list[StagedShard]:
        staged = [self._shard.close("jsonl", ".jsonl")] if self._shard is not None else []
        self._shard = None
        return staged

    def abandon(self) -> None:
        if self._shard is not None:
            self._shard.abandon()
        self._shard = None


class WaveWriter:
    """Writes the rows and failures of one stream of batches into staged files of a wave.

    Files that are begun but not finished, because the work on them failed and is tried again, stay in
    the staging directory, which no reader looks at.
    """

    def __init__(self, output: str, wave: str, wave_format: WaveFormat) -> None:
        directory = filesystem.join(output, STAGING_NAME, wave)
        self._rows = [_RowsWriter(directory, file_format, wave_format) for file_format in wave_format.formats]
        self._failures = _FailuresWriter(directory)

    def __enter__(self) -> WaveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def add(self, batch: EmbeddingBatch) -> list[StagedShard]:
        """Writes a batch; returns the files that it filled."""
        staged = []
        start = 0
        for rows in batch.rows:
            sources = batch.sources[start : start + rows.num_rows]
            start += rows.num_rows
            for writer in self._rows:
                staged += writer.write(rows, sources)
        for failure in batch.failures:
            self._failures.write(failure)
        return staged

    def close(self) -> list[StagedShard]:
        """Finishes the files that are open and returns them."""
        staged = [shard for writer in self._rows for shard in writer.close()]
        return staged + self._failures.close()

    def abandon(self) -> None:
        """Closes the files that are open without finishing them."""
        for writer in self._rows:
            writer.abandon()
        self._failures.abandon()


def _record_inputs(sources: tuple[str, ...]) -> Counter[str]:
    """Counts the records of each TFRecord file, whose sources are `path@offset`; an image file is its one record."""
    addresses = map(Address.parse, sources)
    return Counter(address.path for address in addresses if address is not None)
