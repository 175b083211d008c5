"""Changes below a directory that has one writer: only the holder of its lock makes them.

A holder may be stopped at any point, for any time, while another process takes the lock over. Nothing that it does
afterwards may harm what the other process wrote, although no file system can check a lock and change a file in one
step. Four rules ensure this:

1. Every file is first written to the holder's own staging directory, `staging/<token>/`, and enters the directory by a
   rename. The rename follows a check of the lock.
2. Whoever takes the lock first removes the staging directories of all others (`remove_others`). A rename that was
   checked before the lock changed hands therefore fails: its source is gone.
3. A file is removed only if its name is never used again, by anybody. See `pipeline.dataset.ownership`.
4. Every other change checks the lock first, so that a process that lost the lock soon ends.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem
from pipeline.storage.lock_file import LockFile, open_lock
from pipeline.storage.object_store import Move

_log = logging.getLogger(__name__)

STAGING_NAME = "staging"
_TOKEN = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True)
class LockedDirectory:
    """The right to change a directory; `DatasetLock` returns it. Can be pickled, for workers.

    Attributes:
      path: path or URI of the directory.
      token: names the holder, and the holder's staging directory.
      is_locked: whether the directory has a lock that can be lost; otherwise nothing is checked.
      is_handed_over: whether the holder is a job without a launcher, which releases the lock at its end.
    """

    path: str
    token: str
    is_locked: bool = True
    is_handed_over: bool = False

    @classmethod
    def without_lock(cls, path: str) -> LockedDirectory:
        """Returns the right to change a directory whose only writer is this process, as its caller ensures."""
        return cls(path, uuid.uuid4().hex, is_locked=False)

    def check(self) -> None:
        """Checks that this holder still holds the lock.

        Raises:
          OutputError: another process has taken the lock, or the lock was released.
          OSError: the lock cannot be read.
        """
        lock = open_lock(self.path) if self.is_locked else None
        if lock is None or not lock.can_be_taken:
            return
        holder = lock.read()
        if holder is None or holder.token != self.token:
            by = f"by {holder}" if holder else "and released"
            raise OutputError(f"{self.path} was taken over {by} while this run went on; nothing more is committed")

    def release(self, lock: LockFile | None = None) -> None:
        """Removes the holder's staging directory, and releases the lock if this holder still holds it.

        Only warns of errors: the lease of a lock expires by itself, and the next run removes what was staged.

        Args:
          lock: the file of the lock; opened by default.
        """
        try:
            self.remove_staged()
        except OSError as error:
            _log.warning("%s could not be removed (%s); the next run removes it", self.staged(), error)
        try:
            with (lock or open_lock(self.path)).changing() as change:
                if change.holder is not None and change.holder.token == self.token:
                    change.remove()
        except (OSError, OutputError) as error:
            _log.warning("the lock of %s could not be removed (%s); its lease expires by itself", self.path, error)

    def staged(self, *names: str) -> str:
        """Returns a path in the holder's staging directory."""
        return filesystem.join(self.path, STAGING_NAME, self.token, *names)

    def create(self, *names: str) -> BinaryIO:
        """Opens a new file in the staging directory for writing bytes.

        Raises:
          OutputError: the lock was lost.
          OSError: the file cannot be created.
        """
        self.check()
        return filesystem.create(self.staged(*names))

    def stage(self, name: str, data: bytes) -> str:
        """Writes a file in the staging directory; returns its path.

        Raises:
          OutputError: the lock was lost.
          OSError: the file cannot be written.
        """
        file = self.create(name)
        try:
            file.write(data)
        finally:
            filesystem.close_durably(file)
        return self.staged(name)

    def publish(self, moves: Iterable[Move], publish: Callable[[Sequence[Move]], None] | None = None) -> None:
        """Moves staged files to their names in the directory; idempotent.

        Args:
          moves: from staged paths to paths in the directory.
          publish: moves the files; by default `rename_all`; for the shards of a sink, `Sink.publish`.

        Raises:
          OutputError: the lock was lost.
          OSError: a file cannot be moved.
        """
        moves = tuple(moves)
        self.check()
        try:
            (publish or filesystem.rename_all)(moves)
        except OSError:
            self.check()  # if the lock was lost, the new holder removed the staged files
            raise

    def replace(self, name: str, data: bytes) -> None:
        """Writes a file of the directory that appears whole or not at all.

        Raises:
          OutputError: the lock was lost.
          OSError: the file cannot be written.
        """
        staged = self.stage(f"{uuid.uuid4().hex}-{name.replace('/', '-')}", data)
        self.publish([Move(staged, filesystem.join(self.path, *name.split("/")))])

    def remove(self, paths: Iterable[str], remove: Callable[[Iterable[str]], None] | None = None) -> None:
        """Removes files whose names are never used again; missing ones are ignored.

        Args:
          paths: of the files.
          remove: removes the files; by default `delete`; for the shards of a sink, `Sink.discard`.

        Raises:
          OutputError: the lock was lost.
          OSError: a file cannot be removed.
        """
        paths = tuple(paths)
        if paths:
            self.check()
            (remove or filesystem.delete)(paths)

    def remove_staged(self, *names: str) -> None:
        """Removes what this holder staged, or a part of it. Needs no lock: nobody else uses these files.

        Raises:
          OSError: a file cannot be removed.
        """
        filesystem.delete_directory(self.staged(*names))
        for directory in (self.staged(), filesystem.join(self.path, STAGING_NAME)):
            filesystem.remove_empty_directory(directory)

    def remove_others(self, is_own: Callable[[str], bool] = lambda name: False) -> None:
        """Removes the staging directories of all other holders.

        Args:
          is_own: returns whether a file outside of these directories may be removed too, by its path relative to
            `staging/`.

        Raises:
          OutputError: the lock was lost.
          OSError: a file cannot be removed.
        """

        def is_theirs(name: str) -> bool:
            token = name.partition("/")[0]
            return token != self.token if _TOKEN.fullmatch(token) else is_own(name)

        self.check()
        filesystem.delete_directory(filesystem.join(self.path, STAGING_NAME), is_theirs)
