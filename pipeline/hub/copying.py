"""Copies the files of a module to this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import safe_path
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat


def copy_directory(files: Iterable[FileStat], location: str, target: Path) -> Path:
    """Copies files to a new directory; returns the directory.

    Args:
      files: all below `location`.
      location: a directory, with `/` at its end.
      target: the new directory.

    Raises:
      ModuleError: a file cannot be read, or is not as it was listed.
      OSError: the disk refuses.
    """
    for file in files:
        copy = target / safe_path(file.path.removeprefix(location), location)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy_file(file, copy)
    return target


def copy_file(source: FileStat, target: Path) -> None:
    """Copies a file of a store, or of a directory that machines share, to this machine.

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
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> ModuleError:
    """Returns the error for a path that cannot be read."""
    cause: BaseException = error
    # Beam wraps the cause, at times twice, in an error that holds one cause for each path.
    while details := getattr(cause, "exception_details", None):
        cause = next(iter(details.values()))
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())
    return ModuleError(
        f"module {path}: {reason}; expected an object that can be read; check the path and your permission to read it"
    )
