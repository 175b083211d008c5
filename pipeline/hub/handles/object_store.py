"""A directory or `.tar.gz` in a store that Beam's file systems read, such as `gs://bucket/module`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import MAX_FILES, check_size, is_archive_name, safe_path, unpack_module
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.digest import SAVED_MODEL, not_a_module
from pipeline.savedmodel.module import Module
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat, has_file_system


class RemoteHandle:
    """Copies the files into the cache, which knows them by path, size and time of change."""

    accepts = "a gs:// directory or .tar.gz (likewise with another scheme that Beam reads)"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle names something in a store that Beam has a file system for."""
        return re.match("[^:/]+://[^/]", handle) is not None and has_file_system(handle)

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or copies it."""
        is_archive = is_archive_name(request.handle)
        location = request.handle if is_archive else request.handle.rstrip("/") + "/"
        files = _list_files(location, is_archive=is_archive)
        if not files:
            raise request.not_found()
        if not is_archive and location + SAVED_MODEL not in {file.path for file in files}:
            raise not_a_module(request.handle)

        def make(work: Path) -> Path:
            if is_archive:
                _copy(files[0], work / "archive")
                return unpack_module(work / "archive", work, request.handle)
            for file in files:
                target = work / "module" / safe_path(file.path.removeprefix(location), request.handle)
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(file, target)
            return work / "module"

        return request.cached(("remote", *files), make)


def _list_files(location: str, *, is_archive: bool) -> list[FileStat]:
    """Returns an archive's file or the files of a directory, by path; empty if there are none.

    Raises:
      ModuleError: the location cannot be listed, holds a wildcard, or is too large for a module.
    """
    if filesystem.has_wildcard(location):
        raise ModuleError(f"module {location}: it holds a wildcard, expected one directory or .tar.gz; name it in full")
    try:
        if is_archive:
            files = [file for file in [filesystem.find_file(location)] if file]
        else:
            files = filesystem.list_files(location, limit=MAX_FILES + 1)
    except OSError as error:
        raise _unreadable(location, error) from error
    if len(files) > MAX_FILES:
        raise ModuleError(
            f"module {location}: it has more than {MAX_FILES:,} files, the limit for a module; check the path"
        )
    check_size(sum(file.size_bytes for file in files), location)
    return files


def _copy(source: FileStat, target: Path) -> None:
    """Copies a file of a store to this machine.

    Raises:
      ModuleError: the file cannot be read, or is not as it was listed.
      OSError: the disk refuses.
    """
    total_bytes = 0
    with target.open("xb") as copy:
        chunks = filesystem.read_chunks(source.path)
        while chunk := _next(chunks, source.path):
            total_bytes += len(chunk)
            copy.write(chunk)
    if total_bytes != source.size_bytes:
        raise ModuleError(
            f"module {source.path}: {total_bytes:,} bytes came, expected {source.size_bytes:,}; it changes, try again"
        )


def _next(chunks: Iterator[bytes], path: str) -> bytes:
    """Returns the next bytes of a remote file, none at its end; its errors are not those of the local disk."""
    try:
        return next(chunks, b"")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> ModuleError:
    cause: BaseException = error
    # Beam wraps the cause, at times twice, in an error that holds one cause for each path.
    while details := getattr(cause, "exception_details", None):
        cause = next(iter(details.values()))
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())
    return ModuleError(
        f"module {path}: {reason}; expected an object that can be read; check the path and your permission to read it"
    )
