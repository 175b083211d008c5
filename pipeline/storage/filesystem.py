"""One set of functions for files on local disk and in object stores.

A path with a scheme (`gs://bucket/name`) goes through Beam's file systems. Any other path goes straight to the local
disk; writes there are flushed to the device. Every failure is an `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.storage import object_store
from pipeline.storage.object_store import WILDCARD, FileStat, Move, as_os_error, file_systems, match_files

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CHUNK_BYTES = 1 << 20


def is_remote(path: str) -> bool:
    """Returns whether a path has a scheme, such as `gs://`, and goes through Beam's file systems."""
    return _SCHEME.match(path) is not None


def normalize(path: str | os.PathLike[str]) -> str:
    """Returns a path in this package's form: local paths with `~` expanded and without `file://`."""
    path = os.fspath(path)
    if path.startswith("file://"):
        path = path[len("file://") :]
    return path if is_remote(path) else os.path.normpath(os.path.expanduser(path))


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns a normalized path that does not depend on the current directory, for workers and later runs."""
    path = normalize(path)
    return path if is_remote(path) else os.path.abspath(path)


def join(directory: str, *names: str) -> str:
    """Returns the path of a file below a directory."""
    return "/".join([directory.rstrip("/"), *names]) if is_remote(directory) else os.path.join(directory, *names)


def open_read(path: str) -> BinaryIO:
    """Opens a file for reading its stored bytes; seekable."""
    if is_remote(path):
        return object_store.open_read(path)
    with as_os_error(path):
        if Path(path).is_fifo():  # opening a FIFO would wait for a writer
            raise OSError(errno.EINVAL, "not a regular file", path)
        return Path(path).open("rb")


def read_bytes(path: str) -> bytes:
    """Returns the contents of a file."""
    with open_read(path) as file:
        return file.read()


def read_chunks(path: str) -> Iterator[bytes]:
    """Yields the contents of a file in pieces of bounded size."""
    with open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def read_lines(path: str) -> Iterator[bytes]:
    """Yields the lines of a file without their ends, in the memory of one line; only a line feed ends a line."""
    with io.BufferedReader(cast(io.RawIOBase, open_read(path)), _CHUNK_BYTES) as file:
        for line in file:
            yield line.removesuffix(b"\n")


def create(path: str) -> BinaryIO:
    """Opens a new file for writing bytes; creates its directory if missing."""
    if is_remote(path):
        return object_store.create(path)
    _make_directory(Path(path).parent)
    return Path(path).open("wb")


def close_durably(file: BinaryIO) -> None:
    """Flushes a file that `create` opened to the device, and closes it."""
    with contextlib.closing(file):
        file.flush()
        with contextlib.suppress(io.UnsupportedOperation):  # an object store has no descriptor: closing publishes
            os.fsync(file.fileno())


def write_atomically(path: str, data: bytes | Iterable[bytes]) -> None:
    """Writes a file that appears whole or not at all; replaces an existing file of the same name.

    Args:
      path: path or URI.
      data: the contents, or consecutive pieces of them. If the iterator fails, an object store may hold the earlier
        pieces for a moment, until they are deleted.
    """
    chunks = [data] if isinstance(data, bytes) else data
    if is_remote(path):
        file = create(path)
        try:
            file.writelines(chunks)
        except BaseException:
            file.close()
            delete([path])
            raise
        file.close()
        return
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        file = create(temporary)
        try:
            file.writelines(chunks)
        finally:
            close_durably(file)
        rename(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def rename(source: str, destination: str) -> None:
    """Moves a file; replaces an existing file at the destination."""
    rename_all([Move(source, destination)])


def rename_all(moves: Iterable[Move]) -> None:
    """Moves files; replaces existing files at their targets. Idempotent: a move that was made before is no error.

    Raises:
      OSError: a file cannot be moved.
    """
    moves = tuple(moves)
    object_store.rename_all([move for move in moves if is_remote(move.source)])
    local = [move for move in moves if not is_remote(move.source)]
    directories = {Path(move.target).parent for move in local}
    for directory in directories:
        _make_directory(directory)
    for move in local:
        try:
            os.replace(move.source, move.target)
        except FileNotFoundError:
            if not os.path.exists(move.target):
                raise
    for directory in directories:
        _sync_directory(directory)


def _make_directory(directory: Path) -> None:
    """Creates a directory that survives a power cut."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot open a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def delete(paths: Iterable[str]) -> None:
    """Removes files; missing ones are ignored."""
    remote = []
    for path in paths:
        if is_remote(path):
            remote.append(path)
        else:
            Path(path).unlink(missing_ok=True)
    object_store.delete_all(remote)


def delete_directory(directory: str, is_own: Callable[[str], bool] = lambda name: True) -> None:
    """Removes the files below a directory; on local disk, then also the empty directories.

    Links are not followed, even if the directory itself is a link.

    Args:
      directory: path or URI.
      is_own: returns whether to remove a file, by its path relative to the directory, with `/`.
    """
    if not is_remote(directory) and os.path.islink(directory):
        return
    prefix = directory.rstrip("/") + "/" if is_remote(directory) else os.path.normpath(directory) + os.sep
    paths = [stat.path for stat in list_files(directory)]
    delete(path for path in paths if is_own(path[len(prefix) :].replace(os.sep, "/")))
    if not is_remote(directory):
        for folder, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):  # not empty: the directory has other files
                os.rmdir(folder)


def remove_empty_directory(directory: str) -> None:
    """Removes a local directory if it is empty; object stores have no directories."""
    if not is_remote(directory):
        with contextlib.suppress(OSError):  # not empty, or a link
            os.rmdir(directory)


def exists(path: str) -> bool:
    """Returns whether a file, or on local disk a directory, has this name."""
    if not is_remote(path):
        return os.path.exists(path)
    with as_os_error(path):
        return bool(file_systems().exists(path))


def list_files(directory: str, *, limit: int | None = None) -> list[FileStat]:
    """Returns the files below a directory, recursively, by path; none if there is no such directory.

    Links to directories are not followed.

    Args:
      directory: path or URI.
      limit: in an object store, the largest number of files to list; None for all.

    Raises:
      OSError: a directory cannot be read.
    """
    if is_remote(directory):
        prefix = directory.rstrip("/") + "/"
        return [stat for stat in match_files(as_glob(prefix) + "**", limit) if stat.path.startswith(prefix)]
    found = []
    for folder, _, names in os.walk(directory, onerror=_refuse_unreadable):
        paths = [os.path.normpath(os.path.join(folder, name)) for name in names]
        found += [stat for path in paths if (stat := stat_file(path))]
    return sorted(found, key=lambda stat: stat.path)


def _refuse_unreadable(error: OSError) -> None:
    """Raises the error of an unreadable directory, which `os.walk` would skip silently."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def find_file(path: str) -> FileStat | None:
    """Returns the file of this name, or None if there is none."""
    if not is_remote(path):
        return stat_file(path) if os.path.exists(path) else None
    found = next((stat for stat in match_files(as_glob(path)) if stat.path == path), None)
    # A store with directories, such as HDFS, also matches their paths.
    is_directory = found and object_store.has_directories(path) and match_files(f"{as_glob(path)}/**", 1)
    return None if is_directory else found


def has_wildcard(pattern: str) -> bool:
    """Returns whether a pattern has wildcard characters."""
    return WILDCARD.search(pattern) is not None


def glob_base(pattern: str) -> str:
    """Returns the directory before the first wildcard of a glob."""
    head = WILDCARD.split(pattern, maxsplit=1)[0]
    if is_remote(pattern):
        return head[: head.rindex("/")]
    return os.path.dirname(head) or (os.sep if head.startswith(os.sep) else os.curdir)


def stat_file(path: str) -> FileStat | None:
    """Returns the size and time of a local file; zeros if the path cannot be found, None if it is not a file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: the path contains NUL
        # A dangling link or a deleted file: the attempt to read it becomes a failure record.
        return FileStat(path, 0, 0.0)
    return FileStat(path, status.st_size, status.st_mtime) if os.path.isfile(path) else None


def as_glob(path: str) -> str:
    """Returns a glob that matches a path, and few others; Beam's globs cannot escape `[`."""
    return WILDCARD.sub("?", path)
