"""Runs of the commands in processes that start at once: forks of one process that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.datasets import until

_SERVER = """
import importlib, json, os, sys
import openvino, pipeline.dataset.reader, pipeline.engines.openvino, pipeline.job.execute
from pipeline.beam.internals import make_direct_runner
make_direct_runner()
for line in sys.stdin:
    command, arguments, directory, environment, files = json.loads(line)
    main = importlib.import_module(f"pipeline.commands.{command}").main
    pid = os.fork()
    if not pid:
        for number, (path, mode) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
            os.dup2(os.open(path, mode), number)
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, or the negative number of the signal, and what it printed."""

    code: int
    stdout: str
    stderr: str


class ForkedRun:
    """One command in a process of its own."""

    def __init__(self, server: subprocess.Popen[str], request: str) -> None:
        self._server = server
        server.stdin.write(request + "\n")
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
        """Waits for the end of the command; returns its exit code, or the negative number of the signal."""
        return int(self._server.stdout.readline())


class ForkServer:
    """The process to fork, for one command after the other. Each has the environment of the test at its start."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, *arguments: str) -> ForkedRun:
        """Starts a run, whose output goes nowhere."""
        return self._start("run", arguments, os.getcwd(), os.environ, os.devnull, os.devnull)

    def run(
        self,
        *arguments: str,
        command: str = "run",
        directory: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Done:
        """Does a command, a module of `pipeline.commands`, and waits for its end."""
        with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
            run = self._start(command, arguments, str(directory or os.getcwd()), environment, stdout.name, stderr.name)
            return Done(run.wait(), stdout.read(), stderr.read())

    def _start(self, command, arguments, directory, environment, stdout, stderr) -> ForkedRun:
        files = os.devnull, stdout, stderr
        return ForkedRun(self._process, json.dumps([command, arguments, directory, dict(environment), files]))


@contextmanager
def fork_server(package: Path | None = None) -> Iterator[ForkServer]:
    """Starts the process to fork, which imports the package of a directory, if it is not that of the tests."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=package
    ) as process:
        try:
            yield ForkServer(process)
        finally:
            process.kill()
