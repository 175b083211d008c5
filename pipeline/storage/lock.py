"""One writer for each data set: a lock with a lease.

`OUT/lock.json` names the holder. The holder renews the lease. A stale lock may be taken: its lease has expired, or its
holder was a process of this machine that has ended. What the holder may change, and how, is in `locked`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid

from pipeline.core.errors import OutputError
from pipeline.storage.lock_file import LockToken, open_lock, pid_namespace, process_started
from pipeline.storage.locked import LockedDirectory

_log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Duration of a lease; the holder renews it three times in that period."""
JOB_LEASE_S = 24 * 60 * 60.0
"""Duration of the lease of a job that has no process to renew it. It gives the lock back at its end."""


class DatasetLock:
    """Holds and renews the lock of a data set while the context is entered.

    Example:
      ```
      with DatasetLock("out") as directory:
          ...  # every change of the data set needs the directory
      ```
    """

    def __init__(self, output: str, *, steal: bool = False, lease_s: float = LEASE_S) -> None:
        """Prepares to lock the data set in directory `output`.

        Args:
          output: directory of the data set.
          steal: whether to take the lock even from a holder that seems to be alive.
          lease_s: duration of the lease without renewal.
        """
        self._file = open_lock(output)
        self._output = output
        self._steal = steal
        self._lease_s = lease_s
        self._is_handed_over = False
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._keep_renewing, name="lock", daemon=True)
        pid = os.getpid()
        self._token = LockToken(uuid.uuid4().hex, socket.gethostname(), pid, process_started(pid), 0.0, pid_namespace())
        self._directory = LockedDirectory(output, self._token.token)

    def __enter__(self) -> LockedDirectory:
        """Takes the lock; returns the right to change the data set.

        Raises:
          OutputError: another process holds the lock.
          OSError: the lock's file cannot be written.
        """
        with self._file.changing() as change:
            holder = change.holder
            if holder is not None and not holder.is_stale(time.time()) and not self._steal:
                left_s = holder.expires_s - time.time()
                raise OutputError(
                    f"{self._output} is being written by {holder}; wait for it to end, or for its lease of "
                    f"{left_s:.0f} s to run out if it is gone, or take over with --steal_lock"
                )
            change.write(self._token.renewed(self._lease_s))
        self._renewer.start()
        return self._directory

    def __exit__(self, *_: object) -> None:
        """Removes the staging directory and releases the lock, if this object still holds it."""
        self._stop_renewing()
        if not self._is_handed_over:
            self._directory.release(self._file)

    def hand_over(self, holder: str) -> None:
        """Leaves the lock to a job that goes on after this process; the job releases it.

        Args:
          holder: names the job.

        Raises:
          OutputError: the lock was lost.
          OSError: the lock's file cannot be written.
        """
        self._directory.check()
        self._stop_renewing()
        with self._file.changing() as change:
            change.write(self._token.handed_over(holder, JOB_LEASE_S))
        self._is_handed_over = True

    def _stop_renewing(self) -> None:
        self._done.set()
        self._renewer.join()

    def _keep_renewing(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            try:
                with self._file.changing() as change:
                    if change.holder is None or change.holder.token != self._token.token:
                        _log.error("the lock of %s was taken over; this run will not commit", self._output)
                        return
                    change.write(self._token.renewed(self._lease_s))
            except (OSError, OutputError) as error:
                _log.warning("the lock of %s could not be renewed: %s", self._output, error)
