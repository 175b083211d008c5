"""Files in object stores, through Beam's file systems; callers use `pipeline.storage.filesystem`."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

_T = TypeVar("_T")
WILDCARD = re.compile(r"[*?\[]")
_BATCH_FILES = 100
"""Files of one request: the largest batch of Cloud Storage."""
_PARALLEL_BATCHES = 16


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


@dataclass(frozen=True, slots=True)
class Move:
    """A file to move from one path to another."""

    source: str
    target: str


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


def cloud_client() -> Any:
    """Returns a client of Google Cloud Storage, for what Beam's file systems do not offer; threads may share it."""
    names = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST")
    return _cloud_client(os.getpid(), *map(os.environ.get, names))


@functools.lru_cache(maxsize=1)  # a client holds an access token and open connections
def _cloud_client(process: int, project: str | None, *settings: str | None) -> Any:
    from google.cloud import storage

    del process, settings  # the client reads the settings itself
    return storage.Client(project=project or "unused")


def has_file_system(path: str) -> bool:
    """Returns whether Beam knows the scheme of a path; its first use shows whether the package is installed."""
    from apache_beam.io.filesystem import FileSystem

    scheme = file_systems().get_scheme(path)
    return scheme is not None and any(kind.scheme() == scheme for kind in FileSystem.get_all_subclasses())


def has_directories(path: str) -> bool:
    """Returns whether the store of a path has directories, as HDFS has; most stores have only names with `/`."""
    return bool(file_systems().get_filesystem(path).has_dirs())


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


def rename_all(moves: Sequence[Move]) -> None:
    """Moves objects in parallel batches; idempotent: a move that was made before is no error.

    Raises:
      OSError: an object cannot be moved.
    """
    _in_batches(_rename_batch, moves)


def _rename_batch(moves: Sequence[Move]) -> None:
    from apache_beam.io.filesystem import BeamIOError

    _make_directories({move.target.rpartition("/")[0] for move in moves})
    try:
        with as_os_error(moves[0].source, passing=(BeamIOError,)):
            file_systems().rename([move.source for move in moves], [move.target for move in moves])
    except BeamIOError as error:
        failed: dict[tuple[str, str], Any] = error.exception_details or {}
        for (source, target), reason in failed.items():
            with as_os_error(source):
                was_moved = not file_systems().exists(source) and file_systems().exists(target)
            if not was_moved:
                raise OSError(f"{source}: cannot be moved to {target}: {reason}") from error
        if not failed:
            raise OSError(f"{moves[0].source}: {error}") from error


def _make_directories(directories: Iterable[str]) -> None:
    """Creates missing directories in stores that have directories, such as HDFS, which moves files into no other."""
    for directory in directories:
        with as_os_error(directory):
            if not has_directories(directory) or file_systems().exists(directory):
                continue
        try:
            with as_os_error(directory):
                file_systems().mkdirs(directory)
        except OSError:
            with as_os_error(directory):
                if not file_systems().exists(directory):  # unless another thread has created it
                    raise


def delete_all(paths: Sequence[str]) -> None:
    """Removes objects in parallel batches; missing ones are ignored.

    Raises:
      OSError: an object cannot be removed.
    """
    in_cloud = [path for path in paths if path.startswith("gs://")]
    others = [path for path in paths if not path.startswith("gs://")]
    _in_batches(_delete_batch_in_cloud, in_cloud)
    _in_batches(_delete_one_by_one, others)


def _delete_batch_in_cloud(paths: Sequence[str]) -> None:
    from apache_beam.io.gcp.gcsio import GcsIO
    from apache_beam.options.pipeline_options import PipelineOptions

    # Beam's class `GCSFileSystem` lists each path before it deletes it.
    with as_os_error(paths[0]):
        results = GcsIO(cloud_client(), PipelineOptions([])).delete_batch(list(paths))
    for path, error in results:
        if error is not None:
            raise OSError(f"{path}: cannot be removed: {error}")


def _delete_one_by_one(paths: Sequence[str]) -> None:
    for path in paths:
        if WILDCARD.search(path):
            raise OSError(
                f"{path}: not deleted, because Beam would delete every match of this name as a glob; delete it yourself"
            )
        with as_os_error(path):
            if file_systems().exists(path):
                file_systems().delete([path])


def _in_batches(work: Callable[[Sequence[_T]], None], items: Iterable[_T]) -> None:
    """Calls a function with batches of items, several at a time; raises the first error after all have ended."""
    waiting = iter(items)
    batches = list(iter(lambda: tuple(itertools.islice(waiting, _BATCH_FILES)), ()))
    if len(batches) == 1:  # no thread for the usual case
        work(batches[0])
        return
    with ThreadPoolExecutor(_PARALLEL_BATCHES, thread_name_prefix="store") as pool:
        for result in [pool.submit(work, batch) for batch in batches]:
            result.result()
