"""Files on local disk and in object stores, behind one set of functions.

A path with a scheme (`gs://bucket/name`) goes through Beam's file systems; any other goes straight to
the local disk, where what is written is also flushed to the device. Every failure is an `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.storage import object_store
from pipeline.storage.object_store import FileStat, as_os_error, file_systems, match_files

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WILDCARD = re.compile(r"[*?\[]")
_CHUNK_BYTES = 1 << 20


def is_remote(path: str) -> bool:
    """Says whether a path has a scheme, such as `gs://`, and so is for Beam's file systems."""
    return _SCHEME.match(path) is not None


def normalize(path: str | os.PathLike[str]) -> str:
    """Returns a path as this package names it: local ones with `~` expanded and without `file://`."""
    path = os.fspath(path)
    if path.startswith("file://"):
        path = path[len("file://") :]
    return path if is_remote(path) else os.path.normpath(os.path.expanduser(path))


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns a normalized path that means the same file in every directory, for workers and later runs."""
    path = normalize(path)
    return path if is_remote(path) else os.path.abspath(path)


def join(directory: str, *names: str) -> str:
    """Returns the path of a file below a directory."""
    return "/".join([directory.rstrip("/"), *names]) if is_remote(directory) else os.path.join(directory, *names)


def open_read(path: str) -> BinaryIO:
    """Opens a file for reading bytes, as they are stored; seekable."""
    if is_remote(path):
        return object_store.open_read(path)
    with as_os_error(path):
        if Path(path).is_fifo():  # which would wait for a writer
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


def create(path: str) -> BinaryIO:
    """Opens a new file for writing bytes; makes its directory if there is none."""
    if is_remote(path):
        return object_store.create(path)
    _make_directory(Path(path).parent)
    return Path(path).open("wb")


def close_durably(file: BinaryIO) -> None:
    """Closes a file that `create` opened, after its bytes have reached the device."""
    with contextlib.closing(file):
        file.flush()
        with contextlib.suppress(io.UnsupportedOperation):  # an object store has no descriptor: closing publishes
            os.fsync(file.fileno())


def write_atomically(path: str, data: bytes | Iterable[bytes]) -> None:
    """Writes a file that appears whole or not at all, and replaces one of the same name.

    Args:
      path: path or URI.
      data: the contents, or pieces of them in order. If a piece cannot be had, an object store may keep those
        before it for a moment, until they are deleted.
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
    """Moves a file; one that is at the destination is replaced."""
    if not is_remote(source):
        target = Path(destination)
        _make_directory(target.parent)
        os.replace(source, target)
        _sync_directory(target.parent)
        return
    with as_os_error(source):
        file_systems().rename([source], [destination])


def _make_directory(directory: Path) -> None:
    """Makes a directory that is there also after a power cut."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a directory be opened
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def delete(paths: Iterable[str]) -> None:
    """Removes files; missing ones are ignored."""
    for path in paths:
        if not is_remote(path):
            Path(path).unlink(missing_ok=True)
            continue
        if has_wildcard(path):
            raise OSError(
                f"{path}: not deleted, as Beam would delete all that it matches as a glob; delete it yourself"
            )
        with as_os_error(path):
            if file_systems().exists(path):
                file_systems().delete([path])


def delete_directory(directory: str, is_own: Callable[[str], bool] = lambda name: True) -> None:
    """Removes the files below a directory, and on local disk the directories that are empty then.

    A link is not followed, even if it is the directory itself.

    Args:
      directory: path or URI.
      is_own: says of a file, by its path relative to the directory, with `/`, whether to remove it.
    """
    if not is_remote(directory) and os.path.islink(directory):
        return
    prefix = directory.rstrip("/") + "/" if is_remote(directory) else os.path.normpath(directory) + os.sep
    paths = [stat.path for stat in list_files(directory)]
    delete(path for path in paths if is_own(path[len(prefix) :].replace(os.sep, "/")))
    if not is_remote(directory):
        for folder, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):  # not empty: somebody put a file there meanwhile
                os.rmdir(folder)


def exists(path: str) -> bool:
    """Says whether there is a file, or on local disk a directory, of this name."""
    if not is_remote(path):
        return os.path.exists(path)
    with as_os_error(path):
        return bool(file_systems().exists(path))


def list_files(directory: str, *, follow_links: bool = False, limit: int | None = None) -> list[FileStat]:
    """Returns the files below a directory, recursively, by path; none if there is no such directory.

    Args:
      directory: path or URI.
      follow_links: also those below a link to a directory, each directory once.
      limit: in an object store, the number of files after which the listing ends; None for all.

    Raises:
      OSError: a directory cannot be read.
    """
    if is_remote(directory):
        prefix = directory.rstrip("/") + "/"
        return [stat for stat in match_files(_as_glob(prefix) + "**", limit) if stat.path.startswith(prefix)]
    found = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(directory, onerror=_refuse_unreadable, followlinks=follow_links):
        if follow_links:
            seen.add(os.path.realpath(folder))
            # In a fixed order, as the first way to a directory decides what its files are called.
            folders[:] = [name for name in sorted(folders) if os.path.realpath(os.path.join(folder, name)) not in seen]
        # Paths without `./`, so that one file has one path, whichever pattern finds it.
        paths = [os.path.normpath(os.path.join(folder, name)) for name in names]
        found += [stat for path in paths if (stat := stat_file(path))]
    return sorted(found, key=lambda stat: stat.path)


def _refuse_unreadable(error: OSError) -> None:
    """Raises what `os.walk` met, which would pass over a directory that cannot be read without a word."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def match(pattern: str) -> list[FileStat]:
    """Returns the files that a path, directory or glob names, by path.

    A path that exists is taken as it stands, even with characters that a glob gives a meaning;
    a directory stands for every file below it, also behind links. In a glob, `*` and `?` stop at `/`, and
    `**` stands for any number of directories.
    """
    if not is_remote(pattern):
        if os.path.isdir(pattern):
            return list_files(pattern, follow_links=True)
        if os.path.exists(pattern):
            return [stat] if (stat := stat_file(pattern)) else []
        if not has_wildcard(pattern):
            return []
        found = [stat_file(path) for path in glob.glob(pattern, recursive=True)]
        return sorted((stat for stat in found if stat), key=lambda stat: stat.path)
    if pattern.endswith("/") or pattern.count("/") == 2:  # a directory, a whole bucket
        return list_files(pattern)
    if has_wildcard(pattern) and not exists(pattern):
        return match_files(pattern)
    return [file] if (file := find_file(pattern)) else list_files(pattern)


def find_file(path: str) -> FileStat | None:
    """Returns a file, or None if there is none of this name."""
    if not is_remote(path):
        return stat_file(path) if os.path.exists(path) else None
    return next((stat for stat in match_files(_as_glob(path)) if stat.path == path), None)


def has_wildcard(pattern: str) -> bool:
    """Says whether a pattern has characters that make it a glob."""
    return _WILDCARD.search(pattern) is not None


def glob_base(pattern: str) -> str:
    """Returns the directory that a glob starts from: what stands before its first wildcard."""
    head = _WILDCARD.split(pattern, maxsplit=1)[0]
    if is_remote(pattern):
        return head[: head.rindex("/")]
    return os.path.dirname(head) or (os.sep if head.startswith(os.sep) else os.curdir)


def stat_file(path: str) -> FileStat | None:
    """Returns what is known of a local file, nothing where it cannot be found; None for what is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # NUL is in no name
        # A dangling link or a file that went away: reading it will say so, record by record.
        return FileStat(path, 0, 0.0)
    return FileStat(path, status.st_size, status.st_mtime) if os.path.isfile(path) else None


def _as_glob(path: str) -> str:
    """Returns a glob that matches a path, and few others; Beam's globs have nothing that takes `[` as it stands."""
    return _WILDCARD.sub("?", path)
