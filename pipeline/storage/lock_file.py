"""The file that names the holder of a directory's lock, on local disk and in Google Cloud Storage.

On local disk, every change holds `flock` on the directory. In Cloud Storage, every change requires that the object
still has the generation that was read. Therefore one of two simultaneous attempts succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.core.errors import OutputError
from pipeline.storage import filesystem
from pipeline.storage.object_store import as_os_error, cloud_client

_log = logging.getLogger(__name__)

LOCK_NAME = "lock.json"
_RUNNING = "running"
_PATIENCE_S = 30.0
"""Longest wait for another process that changes the lock; a change takes some milliseconds."""
_POLL_S = 0.002


@dataclass(frozen=True)
class LockToken:
    """The holder of a lock.

    Attributes:
      token: unique for each acquisition of the lock.
      host: name of the holder's machine, or of a job that holds the lock.
      pid: the holder's process id; 0 for a job.
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
        if (self.host, self.pid_namespace) != (socket.gethostname(), pid_namespace()):
            return False
        started = process_started(self.pid)
        return not started or (started != self.process_started and _RUNNING not in (started, self.process_started))

    def renewed(self, lease_s: float) -> LockToken:
        """Returns the token with a lease of `lease_s` seconds from now."""
        return dataclasses.replace(self, expires_s=time.time() + lease_s)

    def handed_over(self, holder: str, lease_s: float) -> LockToken:
        """Returns the token as held by a job that has no process here, with a lease of `lease_s` seconds from now."""
        return dataclasses.replace(self, host=holder, pid=0, pid_namespace="").renewed(lease_s)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host


def process_started(pid: int) -> str:
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


def pid_namespace() -> str:
    """Returns the scope of process ids: the boot id of this machine and the pid namespace; empty if unknown."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


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

    can_be_taken = True

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
        while True:
            if not os.path.isdir(self._directory):
                Path(self._directory).mkdir(parents=True, exist_ok=True)
                self._made_directory = True
            try:
                descriptor = os.open(self._directory, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                self._wait_for_turn(descriptor)
                if not self._is_directory(descriptor):
                    continue  # a run that wrote nothing removed the directory meanwhile
                self.holder = self.read()
                yield self
                return
            finally:
                os.close(descriptor)

    def _wait_for_turn(self, descriptor: int) -> None:
        import fcntl

        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:  # a process was stopped at the one moment that keeps all others out
                    raise OutputError(
                        f"another process has been changing {self._path} for {_PATIENCE_S:.0f} s; it is probably "
                        "stopped: continue or end it, then start again"
                    ) from None
                time.sleep(_POLL_S)

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

    can_be_taken = True

    def __init__(self, output: str) -> None:
        bucket, _, prefix = output[len("gs://") :].partition("/")
        self._bucket = cloud_client().bucket(bucket)
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

    can_be_taken = False
    holder: LockToken | None = None

    def __init__(self, output: str) -> None:
        self._output = output

    @contextlib.contextmanager
    def changing(self) -> Iterator[_NoLock]:
        yield self

    def read(self) -> LockToken | None:
        return None

    def write(self, token: LockToken) -> None:
        if self.holder is None:
            _log.warning("%s cannot be locked; make sure that one run at a time writes to it", self._output)
        self.holder = token

    def remove(self) -> None:
        self.holder = None


LockFile = _LocalLock | _CloudLock | _NoLock


def open_lock(output: str) -> LockFile:
    """Returns the lock file of a directory; does not create it."""
    if output.startswith("gs://"):
        return _CloudLock(output)
    return _NoLock(output) if filesystem.is_remote(output) else _LocalLock(output)
