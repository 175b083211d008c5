"""A cluster on this machine, started by scripts/cluster.sh, and the commands that use it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

import pipeline
from pipeline.core.config import RunConfig
from pipeline.job.summary import Summary
from tests.datasets import until
from tests.environments import REPOSITORY

STARTED_S = 1_200
"""Longest time from the start of a command to the work of its job, on a machine that does much else."""
_SDK_WORKER = "scripts/clusters/sdk_worker.py"
_LOADED = re.compile(r"process (\d+) loaded the module in")


class Unreachable(Exception):
    """A package registry cannot be reached."""


@dataclass(frozen=True)
class Engine:
    """An engine, as scripts/cluster.sh starts it.

    Attributes:
      name: as the script takes it.
      workers: number of processes that start and stop SDK processes, each as if on a machine of its own.
      parents: the processes above an SDK process that can be killed without the engine: what their commands contain.
      job_port: the variable of the port that takes jobs.
      ports: the variables of all other ports.
    """

    name: str
    workers: int
    parents: Mapping[str, str]
    job_port: str
    ports: tuple[str, ...]


ENGINES = (
    Engine(
        "flink",
        2,
        {"TaskManager": "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"},
        "FLINK_JOB_PORT",
        ("FLINK_RPC_PORT", "FLINK_REST_PORT"),
    ),
    Engine(
        "spark",
        2,
        {
            "Spark worker": "org.apache.spark.deploy.worker.Worker",
            "Spark executor": "org.apache.spark.executor.CoarseGrainedExecutorBackend",
        },
        "SPARK_JOB_PORT",
        ("SPARK_MASTER_PORT", "SPARK_WEB_PORT"),
    ),
    Engine("prism", 1, {}, "PRISM_JOB_PORT", ()),
)


@dataclass(frozen=True)
class Load:
    """An SDK process loaded the module.

    Attributes:
      log: the log that says so, of one worker of the engine.
      process: the id of the SDK process.
    """

    log: Path
    process: int


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def complaint(self) -> str:
        """The last line on stderr."""
        return self.errors.splitlines()[-1] if self.errors else ""


@dataclass(frozen=True)
class Command:
    """A command that runs."""

    process: subprocess.Popen[str]
    errors: Path

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for a condition that its job brings about."""
        until(lambda: condition() or self.process.poll() is not None, seconds=STARTED_S)
        assert self.process.poll() is None, self.errors.read_text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> Ended:
        """Waits for its end."""
        output, _ = self.process.communicate()
        return Ended(self.process.returncode, output, self.errors.read_text())


class Cluster:
    """The cluster of an engine.

    Attributes:
      engine: the engine.
      directory: has all files of the cluster.
      job_endpoint: takes jobs.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self._ports = free_ports((engine.job_port, *engine.ports))
        self.job_endpoint = f"localhost:{self._ports[engine.job_port]}"
        self._flags = (f"--job_endpoint={self.job_endpoint}", f"--temp_location={directory / 'temp'}")
        self._home = directory / engine.name
        self._started: list[subprocess.Popen[str]] = []
        self._own: dict[psutil.Process, bool] = {}

    def up(self) -> None:
        """Starts the cluster, or those of its processes that were killed.

        Raises:
          Unreachable: a package registry cannot be reached.
        """
        done = self._script("up")
        if "could not download" in done.stderr:
            raise Unreachable(done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """Stops the cluster, and the commands that a failed test has left."""
        for process in self._started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        done = self._script("down")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not self.processes()

    def _script(self, action: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [REPOSITORY / "scripts/cluster.sh", self.engine.name, action],
            env={
                **os.environ,
                "CLUSTERS": str(self.directory),
                "CLUSTERS_CACHE": str(REPOSITORY / ".clusters/cache"),
                **self._ports,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Returns every process of the cluster, also those whose parents were killed."""
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        if process not in self._own:
            self._own[process] = False
            with contextlib.suppress(psutil.Error):  # it has ended, or is somebody else's
                self._own[process] = process.environ().get("EMBEDDING_CLUSTER") == str(self._home)
        return self._own[process] and _lives(process)

    def sdk_processes(self) -> list[psutil.Process]:
        """Returns the processes that embed."""
        return [process for process in self.processes() if _SDK_WORKER in _command(process)]

    def stop_writer(self, command: Command, output: Path) -> psutil.Process:
        """Stops an SDK process of a command's job while it writes rows, and returns it.

        It stays stopped until it is killed or resumed.
        """
        stopped: list[psutil.Process] = []

        def stop() -> bool:
            if not any(output.glob("staging/*/*/embeddings-*")):
                return False
            for process in filter(lambda process: _writes(process, output), self.sdk_processes()):
                process.suspend()
                until(lambda process=process: process.status() == psutil.STATUS_STOPPED)
                if _writes(process, output):  # still
                    stopped.append(process)
                    return True
                process.resume()
            return False

        command.until(stop)
        return stopped[0]

    def parent_of(self, sdk_process: psutil.Process, name: str) -> psutil.Process:
        """Returns the process above an SDK process that has this name in `Engine.parents`."""
        command = self.engine.parents[name]
        return next(parent for parent in sdk_process.parents() if command in _command(parent))

    def loads(self) -> list[Load]:
        """Returns what the logs have of loaded modules so far."""
        return [
            Load(path, int(found[1]))
            for path in sorted((self._home / "logs").rglob("*"))
            if path.is_file()
            for found in _LOADED.finditer(path.read_text(errors="replace"))
        ]

    def until_nobody_writes(self, output: Path) -> None:
        """Waits until no job writes to a data set any more."""
        until(lambda: not any(_writes(process, output) for process in self.sdk_processes()), seconds=STARTED_S)

    def run(self, source: Path, module: str, output: Path, *flags: str) -> Summary:
        """Does a run, in this process: starting another one takes longer than most runs here."""
        return pipeline.run(RunConfig.from_args([*self.run_flags(source, module, output), *flags]))

    def start(self, source: Path, module: str, output: Path, *flags: str) -> Command:
        """Starts a run in a process of its own."""
        return self.command("pipeline.run", *self.run_flags(source, module, output), *flags)

    def run_flags(self, source: Path, module: str, output: Path) -> list[str]:
        """Returns the arguments of a run on the cluster."""
        config = REPOSITORY / "configs" / f"{self.engine.name}.yaml"
        flags = [f"--config={config}", f"--input={source}", f"--module={module}", f"--output={output}"]
        return [*flags, *self._flags]

    def options(self) -> list[str]:
        """Returns Beam's options, for a command without `--config`."""
        options = yaml.safe_load((REPOSITORY / "configs" / f"{self.engine.name}.yaml").read_text())
        return [*(f"--{name}={value}" for name, value in options.items() if name != "module"), *self._flags]

    def command(self, module: str, *arguments: str) -> Command:
        """Starts `python -m MODULE` in the current directory."""
        errors = self.directory / f"{uuid.uuid4().hex}.stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._started.append(process)
        return Command(process, errors)


def free_ports(names: Sequence[str]) -> Mapping[str, str]:
    """Returns a port for each name on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: str(each.getsockname()[1]) for name, each in zip(names, sockets, strict=True)}


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):  # it has ended
        return " ".join(process.cmdline())
    return ""


def _writes(process: psutil.Process, output: Path) -> bool:
    """Says whether a process has a file of rows open that a job writes."""
    with contextlib.suppress(psutil.Error):  # it has ended
        return any(re.match(rf"{output}/staging/.*/embeddings-", file.path) for file in process.open_files())
    return False
