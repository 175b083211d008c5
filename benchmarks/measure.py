"""Runs one peer in a separate process, and measures time and memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.task import Task

_SAMPLE_S = 0.1
_MIB = 1 << 20


@dataclass(frozen=True)
class Measurement:
    """Time and memory of one run of a peer.

    Attributes:
      images: number of embedded images.
      seconds: wall time of the process, without the excluded time that the peer reports.
      cpu_s: user and system time of all processes of the peer.
      peak_mib: the largest sum of resident memory of these processes.
      other_cores: average number of cores that other programs kept busy during the run.
    """

    images: int
    seconds: float
    cpu_s: float
    peak_mib: float
    other_cores: float


@dataclass(frozen=True)
class Round:
    """One peer's runs in one round, on a few and on many images."""

    small: Measurement
    large: Measurement

    @property
    def images_per_second(self) -> float:
        """Sustained speed; NaN if the large run took no longer than the small one."""
        seconds = self.large.seconds - self.small.seconds
        return (self.large.images - self.small.images) / seconds if seconds > 0 else math.nan

    @property
    def cpu_s_per_1000(self) -> float:
        """Processor seconds for 1000 more images."""
        return 1000 * (self.large.cpu_s - self.small.cpu_s) / (self.large.images - self.small.images)

    @property
    def startup_s(self) -> float:
        """Time of a run without the time for its images, in seconds."""
        return self.small.seconds - self.small.images / self.images_per_second


class PeerError(Exception):
    """A peer ended with an error."""


class _Sampler(threading.Thread):
    """Samples the memory and processor time of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._cpu: dict[int, float] = {}
        self.peak_bytes = 0

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu.values())

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            resident = 0
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            for process in processes:
                try:
                    resident += process.memory_info().rss
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self._cpu[process.pid] = times.user + times.system
            self.peak_bytes = max(self.peak_bytes, resident)

    def stop(self) -> None:
        self._done.set()
        self.join()


def measure(
    peer: str, task: Task, images: int, *, checkout: Path | None = None, python: str = sys.executable
) -> Measurement:
    """Runs a peer on a task.

    Args:
      peer: module in `benchmarks.peers`.
      task: what it embeds.
      images: how many images that are.
      checkout: directory of the repository whose code runs; default: the current directory.
      python: the interpreter of the peer.

    Raises:
      PeerError: the peer ended with an error.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as errors:
        path = Path(scratch, "task.json")
        task.write(path)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        busy_s, started = _busy_s(), time.monotonic()
        command = [python, "-m", "benchmarks.task", peer, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=checkout) as process:
            sampler = _Sampler(process.pid)
            sampler.start()
            output = process.stdout.read() if process.stdout else b""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        busy_s = _busy_s() - busy_s
        sampler.stop()
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise PeerError(f"exit code {process.returncode}: {lines[-1]}")
    excluded = json.loads(output.splitlines()[-1])["excluded_s"]
    cpu_s = max(usage.ru_utime + usage.ru_stime, sampler.cpu_s)
    return Measurement(
        images=images,
        seconds=seconds - excluded,
        cpu_s=cpu_s,
        # Not `ru_maxrss`: on Linux, a process inherits that of the process that started it.
        peak_mib=sampler.peak_bytes / _MIB,
        other_cores=max(0.0, busy_s - cpu_s) / seconds,
    )


def _busy_s() -> float:
    """Returns the busy time of all cores of the machine since boot, in processor seconds."""
    times = psutil.cpu_times()
    return float(times.user + times.system)
