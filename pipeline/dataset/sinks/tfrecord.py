"""Rows as TFRecord files of `tf.train.Example`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from pipeline.dataset.sinks.base import SinkSettings
from pipeline.dataset.sinks.example_schema import example_schema
from pipeline.dataset.sinks.files import FileSink
from pipeline.storage import filesystem
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import decode_rows, encode_rows
from pipeline.tfrecords.framing import frame
from pipeline.tfrecords.gzip_stream import GzipStream

_GZIP_LEVEL = 1  # the bits of floats hardly compress; more effort gains nothing
_ROWS_PER_BATCH = 1024


class TFRecordSink(FileSink):
    """One Example for each row: `key` (bytes), `embedding` (floats), and the copied features."""

    name = "tfrecord"

    def extension(self, settings: SinkSettings) -> str:
        """See `FileSink`."""
        return ".tfrecord.gz" if settings.compression == "gzip" else ".tfrecord"

    def encoder(self, file: BinaryIO, settings: SinkSettings) -> _Encoder:
        """See `FileSink`."""
        return _Encoder(file, is_gzip=settings.compression == "gzip")

    def read(self, path: str) -> Iterator[pa.RecordBatch]:
        """See `Sink`."""
        waiting: list[bytes] = []
        with filesystem.open_read(path) as file:
            stream = GzipStream(file) if path.endswith(".gz") else file
            for item in tfrecord.read_records_sequential(stream):
                if not isinstance(item, tfrecord.Record):
                    raise ValueError(f"damaged record: {item}")
                waiting.append(item.data)
                if len(waiting) == _ROWS_PER_BATCH:
                    yield from decode_rows(waiting)
                    waiting = []
            yield from decode_rows(waiting)

    def describe(self, columns: pa.Schema, dimension: int, before: bytes) -> bytes:
        """See `Sink`."""
        stored = pa.schema([(item.name, self.stored_type(item.type)) for item in columns])
        return example_schema(stored, dimension, before)

    def stored_type(self, kind: pa.DataType) -> pa.DataType:
        """See `Sink`."""
        if pa.types.is_list(kind):
            return pa.list_(self.stored_type(kind.value_type))
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return pa.int64()
        if pa.types.is_floating(kind):
            return pa.float32()
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        return pa.string() if is_text else pa.binary()


class _Encoder:
    def __init__(self, file: BinaryIO, *, is_gzip: bool) -> None:
        # No timestamp in the header: equal rows give equal files.
        self._gzip = gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) if is_gzip else None
        self._file = self._gzip or file

    def accepts(self, rows: pa.RecordBatch) -> bool:
        return True

    def write(self, rows: pa.RecordBatch) -> None:
        self._file.write(b"".join(map(frame, encode_rows(rows))))

    def close(self) -> None:
        if self._gzip is not None:
            self._gzip.close()
