"""A window of a file's bytes in memory that moves forward over the file, with checksums of any part of it."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import Any

from pipeline.storage.checksum import crc32c, crc32c_of_end, extend_crc32c

# Large enough for few system calls, small enough to stay in the processor's cache until the records are extracted.
CHUNK_BYTES = 256 << 10
# For longer ranges, the checksum is cheaper by checkpoints.
DIRECT_CRC_BYTES = 256 << 10

# One read() may allocate its whole size in advance: this bounds each read of a file of unknown size.
_LARGEST_READ_BYTES = 16 << 20
_CHECKPOINT_BYTES = 16 << 10


class ByteWindow:
    """Holds the bytes [base, base + len(data)) of a file.

    Attributes:
      base: offset in the file of the first byte in the window.
      data: the bytes in the window.
      size: size of the file in bytes, None if unknown.
      error: the decompression error; empty if there was none.
    """

    def __init__(self, file: Any, *, seekable: bool) -> None:
        """Begins at the start of a file; a file that is not seekable is read from start to end only."""
        self._file = file
        self._at_end = False
        self._checkpoints = [0]
        self.base = 0
        self.data = b""
        self.size: int | None = None
        self.error = ""
        if seekable:
            file.seek(0, os.SEEK_END)
            self.size = file.tell()
            file.seek(0)

    @property
    def stop(self) -> int:
        """End offset of the window in the file (exclusive)."""
        return self.base + len(self.data)

    @property
    def end(self) -> int | None:
        """End offset of the file, None while unknown."""
        return self.stop if self.size is None and self._at_end else self.size

    def fill(self, offset: int, count: int) -> bool:
        """Makes the window hold the bytes [offset, offset + count).

        Bytes before `offset` may be dropped. If the file ends earlier, the window holds the bytes up to its end and
        the result is False.

        Raises:
          OSError: the file cannot be read.
        """
        if not self.base <= offset <= self.stop:
            self.jump(offset)
        missing = offset + count - self.stop
        if missing <= 0:
            return True
        if self._at_end:
            return False
        if offset > self.base:
            self.hold(offset, self.data[offset - self.base :])
        self.data += self._read_fully(max(missing, CHUNK_BYTES))
        return offset + count <= self.stop

    def cut(self, offset: int) -> bytes:
        """Empties the window and returns its bytes from `offset` on; `read_on` continues after them."""
        data = self.data[offset - self.base :]
        self.hold(self.stop, b"")
        return data

    def read_on(self, count: int) -> bytes:
        """Returns the next `count` bytes after an empty window, fewer at the end; moves the window after them.

        This saves a copy of large data, compared with reading through the window.
        """
        data = self._read_fully(count)
        self.base += len(data)
        return data

    def hold(self, base: int, data: bytes) -> None:
        """Sets the window to `data`, the bytes read last, with offset `base`."""
        self.base, self.data, self._checkpoints = base, data, [0]

    def jump(self, offset: int) -> None:
        """Empties the window of a seekable file and moves it to `offset`."""
        self._file.seek(offset)
        self._at_end = False
        self.hold(offset, b"")

    def peek(self, offset: int, count: int) -> bytes:
        """Returns at most `count` bytes of a seekable file at `offset`; the window stays where it is."""
        self._file.seek(offset)
        data = bytes(self._file.read(count))
        self._file.seek(self.stop)
        return data

    def crc32c(self, start: int, stop: int) -> int:
        """Returns the CRC32C of the bytes [start, stop), which the window holds.

        The cost does not grow with their number. A hostile file can have a valid header at every twelfth byte, each
        with a length of megabytes; to read all these bytes would take days. Therefore the checksum of a long range is
        computed from those of two prefixes of the window, and these from checkpoints every few kilobytes.
        """
        if stop - start <= DIRECT_CRC_BYTES:
            return crc32c(self.data[start - self.base : stop - self.base])
        return crc32c_of_end(self._crc32c_to(stop), self._crc32c_to(start), stop - start)

    def _crc32c_to(self, stop: int) -> int:
        position, checkpoints = stop - self.base, self._checkpoints
        block = position // _CHECKPOINT_BYTES
        while len(checkpoints) <= block:
            end = len(checkpoints) * _CHECKPOINT_BYTES
            checkpoints.append(extend_crc32c(checkpoints[-1], self.data[end - _CHECKPOINT_BYTES : end]))
        return extend_crc32c(checkpoints[block], self.data[block * _CHECKPOINT_BYTES : position])

    def _read_fully(self, count: int) -> bytes:
        largest = _LARGEST_READ_BYTES if self.size is None else count
        data = self._read(min(count, largest))
        if len(data) == count:
            return data
        pieces, missing = [data], count - len(data)
        while pieces[-1] and missing > 0:
            pieces.append(self._read(min(missing, largest)))
            missing -= len(pieces[-1])
        self._at_end = not pieces[-1]
        return b"".join(pieces)

    def _read(self, count: int) -> bytes:
        try:
            return bytes(self._file.read(count))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.error = f"decompression failed: {error}"
            return b""
