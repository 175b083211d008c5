"""A stretch of a file in memory, which moves forward over the file, and checksums of any part of it."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import Any

from pipeline.storage.checksum import crc32c, crc32c_of_end, extend_crc32c

# Large enough for few system calls, small enough to stay in the processor's cache until data is cut out.
CHUNK_BYTES = 256 << 10
# From this length on, the checksum of a stretch costs less by way of the checkpoints.
DIRECT_CRC_BYTES = 256 << 10

# One read() may allocate all that it is asked for, so none asks for more where the file may end sooner.
_LARGEST_READ_BYTES = 16 << 20
_CHECKPOINT_BYTES = 16 << 10


class ByteWindow:
    """Holds the bytes [base, base + len(data)) of a file.

    Attributes:
      base: offset in the file of the first byte held.
      data: the bytes held.
      size: bytes of the file, None if unknown.
      error: why the stream could not be decompressed to its end, empty if it could.
    """

    def __init__(self, file: Any, *, seekable: bool) -> None:
        """Begins at the front of a file; one that is not seekable is read from front to back only."""
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
        """Offset in the file of one past the last byte held."""
        return self.base + len(self.data)

    @property
    def end(self) -> int | None:
        """Where the file ends, None as long as that is not known."""
        return self.stop if self.size is None and self._at_end else self.size

    def fill(self, offset: int, count: int) -> bool:
        """Makes the window hold the bytes [offset, offset + count).

        Bytes before `offset` may be dropped. Returns False if the file ends sooner; the window holds
        what there is, then.

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
        """Empties the window and returns what it held from `offset` on; `read_on` goes on behind that."""
        data = self.data[offset - self.base :]
        self.hold(self.stop, b"")
        return data

    def read_on(self, count: int) -> bytes:
        """Returns the next `count` bytes behind an empty window, fewer at the end; the window moves on.

        Large data that is read like this is not copied once more, as it is when cut out of the window.
        """
        data = self._read_fully(count)
        self.base += len(data)
        return data

    def hold(self, base: int, data: bytes) -> None:
        """Makes the window hold `data`, which was read last, from `base` on."""
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
        """Returns the CRC32C of the bytes [start, stop), all of them held.

        The cost does not grow with their number. A hostile file can put a valid header at every twelfth
        byte, each claiming megabytes, and reading all that they claim would take days. So the checksum
        of a long stretch comes from those of two stretches that both begin where the window does, and
        these from checksums kept for every few kilobytes.
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
