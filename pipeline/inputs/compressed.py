"""Files that are compressed as a whole: by their first bytes, whatever their names say."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.inputs.base import InputFile, InputKind, ReadTask
from pipeline.storage import filesystem
from pipeline.tfrecords.gzip_stream import ByteStream, GzipStream

START_BYTES = 512
"""Bytes at the beginning of a file that show its kind."""
_GZIP_MAGIC = b"\x1f\x8b\x08"
_PIECE_BYTES = 4 << 10


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
      stream: the uncompressed bytes, from their start; seekable if the file is not compressed.
      is_compressed: whether the file is compressed.
    """

    stream: BinaryIO | GzipStream
    is_compressed: bool


class CompressibleFiles(InputKind):
    """Files of records that may be compressed as a whole.

    The positions of a task are the byte offsets of its file, or the indices of its ranges, if any. A file whose name
    says that it is compressed has one position; of one that is compressed without saying so, the first part reads all.
    """

    has_records = True

    def positions(self, task: ReadTask) -> int:
        """See `InputKind`."""
        (file,) = task.files
        if file.is_compressed:
            return 1
        # A file of size 0 has one position: reading it shows whether the file is unreadable.
        return len(task.ranges) if task.ranges is not None else max(file.size_bytes, 1)

    def size_bytes(self, task: ReadTask) -> int:
        """See `InputKind`."""
        (file,) = task.files
        if task.ranges is not None and not file.is_compressed:
            return sum(stop - start for start, stop in task.ranges)
        return file.size_bytes

    def stored_bytes(self, task: ReadTask, start: int) -> int:
        """See `InputKind`."""
        (file,) = task.files
        return stored_bytes(file, start) if file.is_compressed else super().stored_bytes(task, start)


def content_of(file: BinaryIO, matches: Callable[[bytes], bool], *, is_named_so: bool = False) -> Content:
    """Returns the content of a file that gzip or zlib may have compressed.

    Args:
      file: at its start; it is not read past its first bytes unless it is compressed.
      matches: returns whether the first bytes of a file are those of an uncompressed one of the expected kind.
      is_named_so: whether the name of the file says that it is compressed; an empty one is then a file that ends early.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    if is_compressed(start, matches) or (is_named_so and not start):
        return Content(GzipStream(file), True)
    return Content(file, False)


def is_compressed(start: bytes, matches: Callable[[bytes], bool]) -> bool:
    """Returns whether the first bytes of a file are those of a file that gzip or zlib has compressed."""
    if matches(start):
        return False
    return start.startswith(_GZIP_MAGIC) or (_is_zlib(start) and matches(decompressed_start(start)))


def decompressed_start(start: bytes) -> bytes:
    """Returns the first uncompressed bytes of a file from its first bytes, as many as they hold."""
    with contextlib.suppress(zlib.error, EOFError):
        return GzipStream(_Bytes(start)).read(START_BYTES)
    return b""


def _is_zlib(start: bytes) -> bool:
    """Returns whether bytes begin with the header of a zlib stream (RFC 1950)."""
    return len(start) > 1 and start[0] == 0x78 and int.from_bytes(start[:2], "big") % 31 == 0


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


def stored_bytes(file: InputFile, size: int) -> int:
    """Returns the number of bytes of a compressed file that hold the first `size` uncompressed bytes, to about 0.1 %.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(file.path) as stream:
        counted = _CountedStream(stream, max(1, min(_PIECE_BYTES, file.size_bytes // 1000)))
        uncompressed = GzipStream(counted)
        with contextlib.suppress(EOFError, zlib.error):  # a damaged file counts up to its damage
            while size > 0 and (data := uncompressed.read(min(size, _PIECE_BYTES))):
                size -= len(data)
        return counted.read_bytes


class _CountedStream:
    """Counts the bytes that are read from a stream, in pieces of at most `piece_bytes`."""

    def __init__(self, stream: ByteStream, piece_bytes: int) -> None:
        self.read_bytes = 0
        self._stream = stream
        self._piece_bytes = piece_bytes

    def read(self, size: int, /) -> bytes:
        """See `ByteStream`."""
        data = self._stream.read(min(size, self._piece_bytes))
        self.read_bytes += len(data)
        return data
