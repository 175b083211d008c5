"""The directory of an export, which goes from one state to the next at once.

On local disk, the next state is a directory beside it, with hard links to the files that stay. Its publication
exchanges both directories in one step of the kernel (Linux; elsewhere two renames, with no directory for a moment). A
reader sees the old files or the new ones; opening a file of the old state by its path may fail afterwards. In an object
store, publication moves the new objects to their names and then deletes those that no longer count; between the two, a
reader that lists the directory sees rows of both states.

Names of files change with their contents, or their readers open them together: a name never holds other rows later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem
from pipeline.storage.object_store import Move

_REMOTE_STAGING = "_staging"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class ExportDirectory:
    """The directory of an export. Use it in a `with` block, and call `publish` at its end.

    Attributes:
      path: of the directory.
      names: its files at the start, relative, with `/`.
    """

    def __init__(self, path: str, is_own: Callable[[str], bool]) -> None:
        """Looks at the directory.

        Args:
          path: of the directory; need not exist.
          is_own: returns whether an earlier export of this kind has written a file, by its name.

        Raises:
          OutputError: the directory holds other files.
        """
        path = filesystem.absolute(path)
        self._is_remote = filesystem.is_remote(path)
        self.path = path if self._is_remote else os.path.realpath(path)
        self._staging = self._staging_path()
        self._lock: int | None = None
        self._kept: set[str] = set()
        self._written: dict[str, int] = {}
        start = len(filesystem.join(self.path, ""))
        names = [stat.path[start:] for stat in filesystem.list_files(self.path)]
        self._stale = [name for name in names if name.startswith(f"{_REMOTE_STAGING}/")] if self._is_remote else []
        self.names = frozenset(names) - frozenset(self._stale)
        for name in sorted(self.names):
            if not is_own(name):
                raise self.refuse(name)

    def refuse(self, name: str) -> OutputError:
        """Returns the error for a file that no export of this kind has written."""
        return OutputError(
            f"{self.path} holds {name}, which is not of an export of this data set in this form; name a new or empty "
            "directory with --output"
        )

    def _staging_path(self) -> str:
        token = uuid.uuid4().hex
        if self._is_remote:
            return filesystem.join(self.path, _REMOTE_STAGING, token)
        return os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.export-{token}")

    def __enter__(self) -> ExportDirectory:
        if self._is_remote:
            filesystem.delete(filesystem.join(self.path, name) for name in self._stale)
            return self
        os.makedirs(self._staging)
        self._lock = _try_lock(self._staging)
        for other in Path(self._staging).parent.glob(f".{_escape(os.path.basename(self.path))}.export-*"):
            if str(other) != self._staging:
                _remove_stale(other, self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_remote:
            filesystem.delete(self._staged(name) for name in self._written)
        else:
            shutil.rmtree(self._staging, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Opens a new file of the next state for writing; an error removes it again."""
        file = filesystem.create(self._staged(name))
        try:
            yield file
            self._written[name] = file.tell()
            filesystem.close_durably(file)
        except BaseException:
            file.close()
            filesystem.delete([self._staged(name)])
            self._written.pop(name, None)
            raise

    def rename(self, name: str, final: str) -> None:
        """Renames a written file."""
        filesystem.rename(self._staged(name), self._staged(final))
        self._written[final] = self._written.pop(name)

    def discard(self, name: str) -> None:
        """Removes a written file again."""
        filesystem.delete([self._staged(name)])
        del self._written[name]

    def keep(self, name: str) -> None:
        """Takes a file over into the next state."""
        self._kept.add(name)

    def read_path(self, name: str) -> str:
        """Returns the path of a file of the present state."""
        return filesystem.join(self.path, name)

    def _staged(self, name: str) -> str:
        return filesystem.join(self._staging, name)

    @property
    def written(self) -> int:
        """Number of the files of the next state that are new."""
        return len(self._written)

    @property
    def written_bytes(self) -> int:
        """Size of the files of the next state that are new."""
        return sum(self._written.values())

    @property
    def kept(self) -> int:
        """Number of the files of the next state that stay."""
        return len(self._kept)

    @property
    def removed(self) -> frozenset[str]:
        """The files of the present state that are not in the next one."""
        return self.names - self._kept - self._written.keys()

    def publish(self) -> None:
        """Makes the next state the present one.

        Raises:
          OSError: a file or the directory cannot be moved.
        """
        if not self._written and self._kept == self.names:
            if not self._is_remote:
                os.makedirs(self.path, exist_ok=True)
            return
        if self._is_remote:
            gone = self.removed
            filesystem.rename_all(Move(self._staged(name), self.read_path(name)) for name in self._written)
            filesystem.delete(self.read_path(name) for name in gone)
            self._written = {}
            return
        for name in self._kept:
            _link(self.read_path(name), self._staged(name))
        _exchange(self._staging, self.path)


def _escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _try_lock(directory: str) -> int | None:
    """Returns a descriptor that locks a directory until it is closed; None if another process has locked it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_stale(staging: Path, path: str) -> None:
    try:
        lock = _try_lock(str(staging))
    except FileNotFoundError:  # its owner has just ended
        return
    if lock is None:
        raise OutputError(f"another export to {path} is running; wait for its end")
    shutil.rmtree(staging, ignore_errors=True)
    os.close(lock)


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _exchange(new: str, path: str) -> None:
    """Puts directory `new` at `path`; what was there is at `new` then, or was removed."""
    with contextlib.suppress(FileNotFoundError, OSError):
        os.rmdir(path)  # an empty directory has no readers
    if not os.path.exists(path):
        os.rename(new, path)
        return
    library = ctypes.CDLL(None, use_errno=True)
    swap = getattr(library, "renameat2", None)
    if swap is not None:
        if swap(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), path)
    old = f"{new}.old"
    os.rename(path, old)
    os.rename(new, path)
    shutil.rmtree(old)
