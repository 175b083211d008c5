"""One writer for each data set: a lock with a lease, on local disk and in Google Cloud Storage.

`OUT/lock.json` names the holder. The holder renews the lease. A stale lock may be taken: its lease has expired, or its
holder was a process of this machine that has ended. On local disk, every access to the file holds `flock` on the
directory. In Cloud Storage, every change requires that the object still has the generation that was read. Therefore
one of two simultaneous attempts succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem
from pipeline.storage.object_store import as_os_error

_log = logging.getLogger(__name__)

LOCK_NAME = "lock.json"
_RUNNING = "running"
LEASE_S = 60.0
"""Duration of a lease; the holder renews it three times in that period."""


@dataclass(frozen=True)
class LockToken:
    """The holder of a lock.

    Attributes:
      token: unique for each acquisition of the lock.
      host: name of the holder's machine.
      pid: the holder's process id.
      process_started: start time of the process, which detects a reused pid; `running` if the time is unknown.
      expires_s: end of the lease, in seconds since 1970.
      pid_namespace: the scope of the pid (boot of the machine, container); empty if unknown.
    """

    token: str
    host: str
    pid: int
    process_started: str
    expires_s: float
    pid_namespace: str = ""

    def is_stale(self, now_s: float) -> bool:
        """Returns whether the lease has expired, or the holder was a process of this machine that has ended."""
        if now_s >= self.expires_s:
            return True
        if (self.host, self.pid_namespace) != (socket.gethostname(), _pid_namespace()):
            return False
        started = _process_started(self.pid)
        return not started or (started != self.process_started and _RUNNING not in (started, self.process_started))

    def renewed(self, lease_s: float) -> LockToken:
        """Returns the token with a lease of `lease_s` seconds from now."""
        return dataclasses.replace(self, expires_s=time.time() + lease_s)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _process_started(pid: int) -> str:
    """Returns the start time of a process in the kernel's clock ticks, `running` if unknown; empty if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    # Not Linux, or a hidden process of another user: signal 0 shows at least whether the process runs.
    try:
        os.kill(pid, 0)
    except PermissionError:
        return _RUNNING
    except (OSError, OverflowError):
        return ""
    return _RUNNING


def _pid_namespace() -> str:
    """Returns the scope of process ids: the boot id of this machine and the pid namespace; empty if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


class DatasetLock:
    """Holds and renews the lock of a data set while the context is entered.

    Example:
      ```
      with DatasetLock("out") as lock:
          ...  # every commit needs lock.token
      ```
    """

    def __init__(self, output: str, *, steal: bool = False, lease_s: float = LEASE_S) -> None:
        """Prepares to lock the data set in directory `output`.

        Args:
          output: directory of the data set.
          steal: whether to take the lock even from a holder that seems to be alive.
          lease_s: duration of the lease without renewal.
        """
        self._file = _open_lock(output)
        self._output = output
        self._steal = steal
        self._lease_s = lease_s
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._keep_renewing, name="lock", daemon=True)
        pid = os.getpid()
        self.token = LockToken(
            uuid.uuid4().hex, socket.gethostname(), pid, _process_started(pid), 0.0, _pid_namespace()
        )

    def __enter__(self) -> DatasetLock:
        """Takes the lock.

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
            change.write(self.token.renewed(self._lease_s))
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the lock, if this object still holds it."""
        self._done.set()
        self._renewer.join()
        try:
            with self._file.changing() as change:
                if change.holder is not None and change.holder.token == self.token.token:
                    change.remove()
        except (OSError, OutputError) as error:
            _log.warning("the lock of %s could not be removed (%s); its lease expires by itself", self._output, error)

    def _keep_renewing(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            try:
                with self._file.changing() as change:
                    if change.holder is None or change.holder.token != self.token.token:
                        _log.error("the lock of %s was taken over; this run will not commit", self._output)
                        return
                    change.write(self.token.renewed(self._lease_s))
            except (OSError, OutputError) as error:
                _log.warning("the lock of %s could not be renewed: %s", self._output, error)


@contextlib.contextmanager
def still_locked(output: str, token: LockToken | None) -> Iterator[None]:
    """Checks on entry that the data set is locked with a token.

    On local disk, no other process can take the lock before the context ends.

    Args:
      output: directory of the data set.
      token: the token of the lock; None for no check.

    Raises:
      OutputError: the lock was released, or another process holds it.
    """
    lock = _open_lock(output)
    if token is None or isinstance(lock, _NoLock):
        yield
        return
    with lock.changing() as change:
        if change.holder is None or change.holder.token != token.token:
            by = f"by {change.holder}" if change.holder else "and released"
            raise OutputError(f"{output} was taken over {by} while this run went on; nothing more is committed")
        yield
        holder = lock.read() if isinstance(lock, _LocalLock) else None
        if holder is not None and holder.token == token.token:  # no renewal was possible inside the context
            change.write(token.renewed(LEASE_S))


def _parse(data: bytes) -> LockToken | None:
    try:
        token = LockToken(**json.loads(data))
        return dataclasses.replace(token, pid=int(token.pid), expires_s=float(token.expires_s))
    except (ValueError, TypeError, RecursionError):
        return None  # a damaged lock has no holder


def _format(token: LockToken) -> bytes:
    return (json.dumps(asdict(token), indent=2) + "\n").encode()


class _LocalLock:
    """The lock file on local disk."""

    def __init__(self, output: str) -> None:
        self._directory = output
        self._path = filesystem.join(output, LOCK_NAME)
        self._made_directory = False
        self.holder: LockToken | None = None

    def read(self) -> LockToken | None:
        """Returns the holder of the lock."""
        try:
            return _parse(Path(self._path).read_bytes())
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def changing(self) -> Iterator[_LocalLock]:
        """Lets one process at a time read and change the lock."""
        import fcntl

        while True:
            if not os.path.isdir(self._directory):
                Path(self._directory).mkdir(parents=True, exist_ok=True)
                self._made_directory = True
            try:
                descriptor = os.open(self._directory, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not self._is_directory(descriptor):
                    continue  # a run that wrote nothing removed the directory meanwhile
                self.holder = self.read()
                yield self
                return
            finally:
                os.close(descriptor)

    def _is_directory(self, descriptor: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._directory))
        return False

    def write(self, token: LockToken) -> None:
        self._remove_temporary()
        filesystem.write_atomically(self._path, _format(token))

    def _remove_temporary(self) -> None:
        """Removes the temporary files of processes that were killed while they wrote the lock."""
        for path in Path(self._directory).glob(f"{LOCK_NAME}.*.tmp"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        self._remove_temporary()
        Path(self._path).unlink(missing_ok=True)
        if self._made_directory:
            with contextlib.suppress(OSError):  # not empty: the run wrote files
                os.rmdir(self._directory)


class _CloudLock:
    """The lock's object in Google Cloud Storage."""

    def __init__(self, output: str) -> None:
        from google.cloud import storage as google_storage

        bucket, _, prefix = output[len("gs://") :].partition("/")
        client = google_storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT", "unused"))
        self._bucket = client.bucket(bucket)
        self._name = "/".join(filter(None, [prefix.rstrip("/"), LOCK_NAME]))
        self._generation = 0
        self.holder: LockToken | None = None

    def read(self) -> LockToken | None:
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(self._name)
        with as_os_error(self._name):
            try:
                data = blob.download_as_bytes()
            except NotFound:
                self._generation = 0
                return None
            self._generation = int(blob.generation or 0)
            return _parse(data)

    @contextlib.contextmanager
    def changing(self) -> Iterator[_CloudLock]:
        """Reads the lock; a later change succeeds only if no other process has changed the lock since."""
        self.holder = self.read()
        yield self

    def write(self, token: LockToken) -> None:
        blob = self._bucket.blob(self._name)
        with self._conditionally():
            blob.upload_from_string(_format(token), if_generation_match=self._generation)

    def remove(self) -> None:
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(self._name)
        with self._conditionally(), contextlib.suppress(NotFound):
            blob.delete(if_generation_match=self._generation)

    @contextlib.contextmanager
    def _conditionally(self) -> Iterator[None]:
        from google.api_core.exceptions import PreconditionFailed

        try:
            with as_os_error(self._name, passing=(PreconditionFailed,)):
                yield
        except PreconditionFailed:
            raise OutputError(
                f"another run changed {LOCK_NAME} of this data set at the same moment; try again"
            ) from None


class _NoLock:
    """The lock for stores that cannot lock: only warns."""

    holder: LockToken | None = None

    def __init__(self, output: str) -> None:
        self._output = output

    @contextlib.contextmanager
    def changing(self) -> Iterator[_NoLock]:
        yield self

    def write(self, token: LockToken) -> None:
        if self.holder is None:
            _log.warning("%s cannot be locked; make sure that one run at a time writes to it", self._output)
        self.holder = token

    def remove(self) -> None:
        self.holder = None


def _open_lock(output: str) -> _LocalLock | _CloudLock | _NoLock:
    if output.startswith("gs://"):
        return _CloudLock(output)
    return _NoLock(output) if filesystem.is_remote(output) else _LocalLock(output)
