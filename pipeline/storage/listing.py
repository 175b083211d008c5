"""Listing the files of a path, directory or glob: streamed in pages, with several folders listed at once."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue, SimpleQueue

from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat, match_files
from pipeline.storage.pages import PAGE_FILES, FilePage, Folder, pages_of

PARALLEL_FOLDERS = 8
"""Folders that are listed at the same time: network file systems and object stores answer slowly."""
_WAITING_PAGES = 8


ListFolder = Callable[[Folder], Iterator[FilePage | Folder]]


@dataclass(frozen=True)
class Match:
    """The files that a pattern names.

    Attributes:
      base: the directory that the names of the files are relative to; empty for the current directory.
      is_file: whether the pattern is the path of one file.
      pages: the files, in any order; to be iterated once. Raises OSError if a folder cannot be listed.
    """

    base: str
    is_file: bool
    pages: Iterator[FilePage]


def match(pattern: str) -> Match:
    """Finds the files that a path, directory or glob names.

    An existing path is taken literally, even if it has wildcard characters. A directory stands for every file below
    it; links are followed, and each directory is listed once. In a glob, `*` and `?` do not match `/`, and `**`
    matches any number of directories.

    Raises:
      OSError: the store cannot be reached.
    """
    if filesystem.is_remote(pattern):
        return _match_remote(pattern)
    if os.path.isdir(pattern):
        return Match(pattern, False, _walk_local(pattern))
    if os.path.exists(pattern):
        found = filesystem.stat_file(pattern)
        return Match(os.path.dirname(pattern), True, pages_of([found] if found else []))
    if not filesystem.has_wildcard(pattern):
        return Match(pattern, False, iter(()))
    base, rest = _split_glob(pattern)
    paths = glob.iglob(os.path.join(glob.escape(base), rest), recursive=True)
    return Match(base, False, pages_of(_once(filter(None, map(filesystem.stat_file, paths)))))


def list_folders(folders: Iterable[str]) -> Iterator[FilePage]:
    """Yields the files directly in some folders, in any order; nothing for a folder that does not exist.

    Args:
      folders: paths that end with `/`.

    Raises:
      OSError: a folder cannot be listed.
    """
    by_store: dict[bool, list[str]] = {}
    for folder in folders:
        by_store.setdefault(folder.startswith("gs://"), []).append(folder)
    for is_cloud, chosen in by_store.items():
        list_folder: ListFolder = _list_any
        if is_cloud:
            from pipeline.storage.cloud_listing import CloudListing  # imports Beam, which is slow

            list_folder = CloudListing(None).list_folder
        yield from _walk(_ALL, functools.partial(_list_chosen, chosen, list_folder))


_ALL = Folder("", "")
"""Stands for all folders of a list."""


def _list_chosen(chosen: Sequence[str], list_folder: ListFolder, folder: Folder) -> Iterator[FilePage | Folder]:
    if folder is _ALL:
        yield from (Folder(path, path) for path in chosen)
    else:
        yield from (item for item in list_folder(folder) if isinstance(item, FilePage))


def _list_any(folder: Folder) -> Iterator[FilePage | Folder]:
    """Lists one folder on local disk or in a store that Beam reads."""
    if filesystem.is_remote(folder.path):
        yield from pages_of(match_files(filesystem.as_glob(folder.path) + "*"))
    else:
        yield from _list_local(set(), [], Folder(folder.path.rstrip(os.sep) or os.sep, folder.real_path))


def _split_glob(pattern: str) -> tuple[str, str]:
    """Splits a glob into the directory before its first wildcard, and the rest.

    A directory that exists is taken literally, even if its name has wildcard characters.
    """
    parts = pattern.split(os.sep)
    for index, part in enumerate(parts[:-1]):
        if filesystem.has_wildcard(part) and not os.path.isdir(os.sep.join(parts[: index + 1])):
            break
    else:
        index = len(parts) - 1
    base = os.sep.join(parts[:index])
    return base or (os.sep if index else ""), os.sep.join(parts[index:])


def _match_remote(pattern: str) -> Match:
    is_folder = pattern.endswith("/") or pattern.count("/") == 2  # a directory, a whole bucket
    if not is_folder and (file := filesystem.find_file(pattern)):
        return Match(posixpath.dirname(pattern), True, pages_of([file]))
    is_glob = filesystem.has_wildcard(pattern) and not is_folder
    base = filesystem.glob_base(pattern) if is_glob else pattern.rstrip("/")
    if pattern.startswith("gs://"):
        from pipeline.storage.cloud_listing import CloudListing  # imports Beam, which is slow

        listing = CloudListing(pattern if is_glob else None)
        return Match(base, False, _walk(Folder(base + "/", base + "/"), listing.list_folder))
    return Match(base, False, pages_of(match_files(pattern) if is_glob else filesystem.list_files(pattern)))


def _once(stats: Iterable[FileStat]) -> Iterator[FileStat]:
    """Drops repeated paths: a glob with two `**` finds a file in several ways."""
    seen: set[str] = set()
    for item in stats:
        if item.path not in seen:
            seen.add(item.path)
            yield item


def _walk_local(directory: str) -> Iterator[FilePage]:
    seen: set[str] = set()
    links: list[str] = [directory]
    while links:
        # In sorted order, because the first path to a directory decides the paths of its files. A directory's own path
        # comes before all links to it.
        found: list[str] = []
        for link in links:
            folder = Folder(os.path.normpath(link), os.path.realpath(link))
            yield from _walk(folder, functools.partial(_list_local, seen, found))
        links = sorted(found)


def _list_local(seen: set[str], links: list[str], folder: Folder) -> Iterator[FilePage | Folder]:
    """Lists one folder; collects the links to directories, whose turn comes later."""
    if folder.real_path in seen:
        return
    seen.add(folder.real_path)
    try:
        entries = os.scandir(folder.path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Folder(os.path.join(folder.path, entry.name), os.path.join(folder.real_path, entry.name))
            elif entry.is_symlink() and _is_directory(entry):
                links.append(os.path.join(folder.path, entry.name))
    with contextlib.suppress(FileNotFoundError), os.scandir(folder.path) as entries:
        waiting = (entry for entry in entries if not _is_directory(entry))
        while chunk := list(itertools.islice(waiting, PAGE_FILES)):
            yield from pages_of(sorted(filter(None, map(_stat_entry, chunk)), key=lambda item: item.path))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that cannot be followed, such as one to itself
        return False


def _stat_entry(entry: os.DirEntry[str]) -> FileStat | None:
    # Paths without `./`: a file has the same path for every pattern that matches it.
    path = entry.path[2:] if entry.path.startswith("./") else entry.path
    try:
        status = entry.stat()
    except OSError:
        # A dangling link or a deleted file: the attempt to read it becomes a failure record.
        return FileStat(path, 0, 0.0)
    return FileStat(path, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None


class _Stopped(Exception):
    """The consumer of a walk has ended."""


def _walk(root: Folder, list_folder: ListFolder) -> Iterator[FilePage]:
    """Yields the pages of a folder and of all folders that it leads to; lists several folders at once.

    Raises:
      OSError: a folder cannot be listed.
    """
    folders: SimpleQueue[Folder | None] = SimpleQueue()
    results: Queue[FilePage | BaseException | None] = Queue(_WAITING_PAGES)
    stop = threading.Event()
    lock = threading.Lock()
    left = 1

    def put(item: FilePage | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(Full):
                results.put(item, timeout=0.1)
                return
        raise _Stopped

    def work() -> None:
        nonlocal left
        with contextlib.suppress(_Stopped):
            while not stop.is_set() and (folder := folders.get()) is not None:
                try:
                    for item in list_folder(folder):
                        if isinstance(item, Folder):
                            with lock:
                                left += 1
                            folders.put(item)
                        else:
                            put(item)
                except Exception as error:
                    put(error)
                with lock:
                    left -= 1
                    is_last = not left
                if is_last:
                    put(None)

    folders.put(root)
    threads = [threading.Thread(target=work, name="list", daemon=True) for _ in range(PARALLEL_FOLDERS)]
    for thread in threads:
        thread.start()
    try:
        while (item := results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        for _ in threads:
            folders.put(None)
        with contextlib.suppress(Empty):
            while True:
                results.get_nowait()
        for thread in threads:
            thread.join()
