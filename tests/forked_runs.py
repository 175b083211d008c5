"""Runs of the command in processes that start at once: forks of one process that has imported everything."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from tests.datasets import until

_SERVER = """
import json, os, sys
import openvino, pipeline.dataset.reader, pipeline.engines.openvino, pipeline.job.execute
from pipeline.beam.internals import make_direct_runner
from pipeline.commands.run import main
make_direct_runner()
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(2, 1)
        os._exit(main(json.loads(line)))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class ForkedRun:
    """One run in a process of its own."""

    def __init__(self, server: subprocess.Popen, arguments: Sequence[str]) -> None:
        self._server = server
        server.stdin.write(json.dumps(arguments) + "\n")
        server.stdin.flush()
        self._process = psutil.Process(int(server.stdout.readline()))

    @property
    def is_running(self) -> bool:
        try:
            return self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def stop(self) -> None:
        """Stops the process, if it runs still, and waits until it has."""
        self.send(signal.SIGSTOP)
        until(lambda: not self.is_running or self._process.status() == psutil.STATUS_STOPPED)

    def send(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def wait(self) -> int:
        """Waits for the end of the run; returns its exit code, or the negative number of the signal."""
        return int(self._server.stdout.readline())


@contextmanager
def fork_server() -> Iterator[subprocess.Popen]:
    """Starts the process to fork; for `ForkedRun`, one after the other."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server
        finally:
            server.kill()
