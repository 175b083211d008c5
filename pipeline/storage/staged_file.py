"""A file in the staging directory of a lock's holder, with its size and checksum."""

from __future__ import annotations

import contextlib
import io
import uuid
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pipeline.storage import filesystem
from pipeline.storage.checksum import extend_crc32c
from pipeline.storage.locked import LockedDirectory


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A complete staged file.

    Attributes:
      path: of the file.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes.
      rows: number of its records.
    """

    path: str
    size_bytes: int
    crc32c: int
    rows: int


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

    def __init__(self, directory: LockedDirectory, folder: str, prefix: str) -> None:
        """Creates the file; its name is unique.

        Args:
          directory: whose staging directory gets the file.
          folder: of the file in the staging directory.
          prefix: of the file's name.

        Raises:
          OutputError: another run has taken over the data set.
          OSError: the file cannot be created.
        """
        name = f"{prefix}-{uuid.uuid4().hex}"
        self._path = directory.staged(folder, name)
        self._raw = directory.create(folder, name)
        self._counting = _CountingFile(self._raw)
        self.file = cast(BinaryIO, self._counting)
        self.rows = 0

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._counting.size_bytes

    def close(self) -> WrittenFile:
        """Flushes the file to the device and closes it."""
        filesystem.close_durably(self._raw)
        return WrittenFile(self._path, self._counting.size_bytes, self._counting.crc32c, self.rows)

    def abandon(self) -> None:
        """Closes the file without finishing it."""
        self._counting.abandon()
        with contextlib.suppress(OSError):  # the buffered bytes are not needed
            self._raw.close()
