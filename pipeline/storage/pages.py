"""Pages of a listing: the files of a folder as columns."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.storage.object_store import FileStat

PAGE_FILES = 5_000
"""Largest number of files in a page."""


@dataclass(frozen=True, slots=True)
class FilePage:
    """Some files of one folder, as columns of equal length.

    Attributes:
      folder: path of the folder.
      paths: of the files.
      sizes: of the files, in bytes; 0 if unknown.
      mtimes: modification times, in seconds since 1970.
    """

    folder: str
    paths: Sequence[str]
    sizes: Sequence[int]
    mtimes: Sequence[float]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to list.

    Attributes:
      path: by which its files are found.
      real_path: the same without links.
    """

    path: str
    real_path: str


def pages_of(stats: Iterable[FileStat]) -> Iterator[FilePage]:
    """Yields pages of files, in their order; files of one folder share pages."""
    for folder, group in itertools.groupby(stats, lambda item: posixpath.dirname(item.path)):
        while chunk := list(itertools.islice(group, PAGE_FILES)):
            yield FilePage(
                folder,
                [item.path for item in chunk],
                [item.size_bytes for item in chunk],
                [item.mtime_s for item in chunk],
            )
