"""Files in object stores, through Beam's file systems; callers use `pipeline.storage.filesystem`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast


@dataclass(frozen=True, slots=True)
class FileStat:
    """The state of a file at the time of its listing.

    Attributes:
      path: its path or URI.
      size_bytes: its size.
      mtime_s: modification time, in seconds since 1970.
    """

    path: str
    size_bytes: int
    mtime_s: float


@contextlib.contextmanager
def as_os_error(path: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns all exceptions of the stores' clients into `OSError`, except those in `passing`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, passing):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{path}: {text}") from error


def file_systems() -> Any:
    """Returns Beam's class `FileSystems`, whose import is slow."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def has_file_system(path: str) -> bool:
    """Returns whether Beam knows the scheme of a path; its first use shows whether the package is installed."""
    from apache_beam.io.filesystem import FileSystem

    scheme = file_systems().get_scheme(path)
    return scheme is not None and any(kind.scheme() == scheme for kind in FileSystem.get_all_subclasses())


class _RemoteFile(io.RawIOBase):
    """A file of an object store; all exceptions of the store's client become `OSError`."""

    def __init__(self, path: str, file: Any) -> None:
        self._path = path
        self._file = file

    def readable(self) -> bool:
        return bool(self._file.readable())

    def writable(self) -> bool:
        return bool(self._file.writable())

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def read(self, size: int = -1, /) -> bytes:
        with as_os_error(self._path):
            return bytes(self._file.read() if size is None or size < 0 else self._file.read(size))

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any, /) -> int:
        with as_os_error(self._path):
            self._file.write(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with as_os_error(self._path):
            self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            with as_os_error(self._path):
                self._file.close()


def open_read(path: str) -> BinaryIO:
    """Opens an object for reading its stored bytes; seekable."""
    with as_os_error(path):
        return cast(BinaryIO, _RemoteFile(path, file_systems().open(path, compression_type="uncompressed")))


def create(path: str) -> BinaryIO:
    """Opens a new object for writing; closing the file publishes it."""
    with as_os_error(path):
        file = file_systems().create(path, "application/octet-stream", compression_type="uncompressed")
        return cast(BinaryIO, _RemoteFile(path, file))


def match_files(pattern: str, limit: int | None = None) -> list[FileStat]:
    """Returns the files that match a Beam glob, sorted by path.

    Args:
      pattern: the glob.
      limit: the largest number of files to list; None for all.

    Raises:
      OSError: the store cannot be listed.
    """
    with as_os_error(pattern):
        found = file_systems().match([pattern], [limit])[0].metadata_list
        stats = [FileStat(item.path, item.size_in_bytes, item.last_updated_in_seconds or 0.0) for item in found]
    return sorted((stat for stat in stats if not stat.path.endswith("/")), key=lambda stat: stat.path)
