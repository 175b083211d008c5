"""A directory or `.tar.gz` in a store that Beam's file systems read, such as `gs://bucket/module`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import MAX_FILES, check_size, is_archive_name, unpack_module
from pipeline.hub.contents import choose_root, locate_module, module_roots
from pipeline.hub.copying import copy_directory, copy_file, unreadable
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.savedmodel.module import Module
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat, has_file_system


class RemoteHandle:
    """Copies the files into the cache, which knows them by path, size and time of change."""

    accepts = "a gs:// directory or .tar.gz (likewise with another scheme that Beam reads)"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle names something in a store that Beam has a file system for."""
        return re.match("[^:/]+://.", handle) is not None and has_file_system(handle)

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or copies it."""
        is_archive = is_archive_name(request.handle)
        location = request.handle if is_archive else request.handle.removesuffix("/" + SAVED_MODEL).rstrip("/") + "/"
        files = _list_files(location, is_archive=is_archive)
        if not files:
            raise request.not_found()
        if not is_archive:
            location = _module_location(files, location, request.handle)
            files = [file for file in files if file.path.startswith(location)]

        def make(work: Path) -> Path:
            if is_archive:
                copy_file(files[0], work / "archive")
                return unpack_module(work / "archive", work, request.handle)
            return locate_module(copy_directory(files, location, work / "module"), request.handle)

        return request.cached(("remote", *files), make)


def _module_location(files: Iterable[FileStat], location: str, handle: str) -> str:
    """Returns the directory of the module among the files below a location, with `/` at its end."""
    paths = [PurePosixPath(file.path.removeprefix(location)) for file in files]
    root = choose_root(module_roots(paths), handle).as_posix()
    return location if root == "." else f"{location}{root}/"


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
        raise unreadable(location, error) from error
    if len(files) > MAX_FILES:
        raise ModuleError(
            f"module {location}: it has more than {MAX_FILES:,} files, the limit for a module; check the path"
        )
    check_size(sum(file.size_bytes for file in files), location)
    return files
