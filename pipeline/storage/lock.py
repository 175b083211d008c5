"""One writer for each data set: a lock with a lease, on local disk and in Google Cloud Storage.

`OUT/lock.json` names who writes. Its holder renews it; a lock whose lease has run out, or whose holder
was a process of this machine that is gone, may be taken. On local disk the file is only touched under
`flock` on the directory; in Cloud Storage each change is made under the condition that the object's
generation is the one that was read. So of two that try at once, one wins.
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
"""How long a lock holds without being renewed; it is renewed three times as often."""


@dataclass(frozen=True)
class LockToken:
    """Who holds a lock.

    Attributes:
      token: unique for each time a lock is taken.
      host: name of the holder's machine.
      pid: the holder's process.
      process_started: what tells the process from a later one of the same number, or only that it runs.
      expires_s: when the lease runs out, in seconds since 1970.
      pid_namespace: what process numbers refer to: machines and their containers have their own; empty if unknown.
    """

    token: str
    host: str
    pid: int
    process_started: str
    expires_s: float
    pid_namespace: str = ""

    def is_stale(self, now_s: float) -> bool:
        """Says whether the lease has run out, or the holder was a process here that is gone."""
        if now_s >= self.expires_s:
            return True
        if (self.host, self.pid_namespace) != (socket.gethostname(), _pid_namespace()):
            return False
        started = _process_started(self.pid)
        return not started or (started != self.process_started and _RUNNING not in (started, self.process_started))

    def renewed(self, lease_s: float) -> LockToken:
        """Returns the token with a lease that begins now, and holds for `lease_s` seconds."""
        return dataclasses.replace(self, expires_s=time.time() + lease_s)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _process_started(pid: int) -> str:
    """Returns the start time of a running process in the kernel's clock ticks, or an empty text."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    # Not Linux, or another user's process, of which nothing is shown: a signal tells at least whether it runs.
    try:
        os.kill(pid, 0)
    except PermissionError:
        return _RUNNING
    except (OSError, OverflowError):
        return ""
    return _RUNNING


def _pid_namespace() -> str:
    """Returns what tells apart where a process number counts: the start of this machine, and the container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


class DatasetLock:
    """Holds the lock of a data set for as long as it is entered, and keeps renewing it.

    Example:
      ```
      with DatasetLock("out") as lock:
          ...  # lock.token goes with whatever commits
      ```
    """

    def __init__(self, output: str, *, steal: bool = False, lease_s: float = LEASE_S) -> None:
        """Prepares to lock the data set in directory `output`.

        Args:
          output: directory of the data set.
          steal: take the lock even from a holder that seems to be alive.
          lease_s: how long the lock holds without being renewed.
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
          OutputError: somebody else holds it.
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
        """Gives the lock back, if it is still ours."""
        self._done.set()
        self._renewer.join()
        try:
            with self._file.changing() as change:
                if change.holder is not None and change.holder.token == self.token.token:
                    change.remove()
        except (OSError, OutputError) as error:
            _log.warning("the lock of %s could not be removed (%s); it runs out by itself", self._output, error)

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
    """Makes sure that the data set is locked by the holder of a token, on entering.

    On local disk nobody can take the lock before this is left.

    Args:
      output: directory of the data set.
      token: of the lock; None to do without.

    Raises:
      OutputError: it is not locked any more, or by somebody else.
    """
    lock = _open_lock(output)
    if token is None or isinstance(lock, _NoLock):
        yield
        return
    with lock.changing() as change:
        if change.holder is None or change.holder.token != token.token:
            by = f"by {change.holder}" if change.holder else "and given back"
            raise OutputError(f"{output} was taken over {by} while this run went on; nothing more is committed")
        yield
        holder = lock.read() if isinstance(lock, _LocalLock) else None
        if holder is not None and holder.token == token.token:  # it could not be renewed meanwhile
            change.write(token.renewed(LEASE_S))


def _parse(data: bytes) -> LockToken | None:
    try:
        token = LockToken(**json.loads(data))
        return dataclasses.replace(token, pid=int(token.pid), expires_s=float(token.expires_s))
    except (ValueError, TypeError, RecursionError):
        return None  # damaged: nobody's


def _format(token: LockToken) -> bytes:
    return (json.dumps(asdict(token), indent=2) + "\n").encode()


class _LocalLock:
    """The lock's file on local disk."""

    def __init__(self, output: str) -> None:
        self._directory = output
        self._path = filesystem.join(output, LOCK_NAME)
        self._made_directory = False
        self.holder: LockToken | None = None

    def read(self) -> LockToken | None:
        """Returns who holds the lock."""
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
                    continue  # a run that wrote nothing removed it while this one waited
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
        """Removes what a process that was killed while it wrote the lock has left."""
        for path in Path(self._directory).glob(f"{LOCK_NAME}.*.tmp"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        self._remove_temporary()
        Path(self._path).unlink(missing_ok=True)
        if self._made_directory:
            with contextlib.suppress(OSError):  # it is empty only where the run wrote nothing
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
        """Reads the lock; a change after that only succeeds if nobody else made one."""
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
    """For stores that offer no way to lock."""

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
