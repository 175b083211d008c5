"""What Dataflow does with a job, as far as Beam can do it here: workers run the staged graph with the staged files.

A worker is a process that finds this package in the staged source distribution only. Its dependencies are those of the
tests: nothing is installed.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud.dataflow import Environment, JobState
from google.protobuf import json_format

from tests.dataflow.service import Moment, Play, PlayedJob
from tests.gcs_emulator import GcsEmulator

SDIST = "workflow.tar.gz"
"""The name that Beam gives to the source distribution of `--setup_file`."""


@dataclass(frozen=True)
class StagedJob:
    """The files of a job in the object store.

    Attributes:
      environment: of the job.
      graph: the pipeline.
      files: the contents of the files for the workers, by the name that a worker sees.
    """

    environment: Environment
    graph: beam_runner_api_pb2.Pipeline
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, gcs: GcsEmulator, environment: Environment) -> StagedJob:
        """Reads what the environment of a job names."""
        graph = beam_runner_api_pb2.Pipeline.FromString(gcs.read(options_of(environment)["pipelineUrl"]))
        files = {}
        for container in graph.components.environments.values():
            for dependency in container.dependencies:
                assert dependency.type_urn == common_urns.artifact_types.URL.urn
                url = beam_runner_api_pb2.ArtifactUrlPayload.FromString(dependency.type_payload).url
                role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(dependency.role_payload)
                files[role.staged_name] = gcs.read(url)
        return cls(environment, graph, files)

    def run(self, directory: Path) -> None:
        """Runs the graph to its end in a worker process.

        Args:
          directory: an empty one, for the worker.
        """
        staged = directory / "staged"
        staged.mkdir(parents=True)
        for name, content in self.files.items():
            (staged / name).write_bytes(content)
        with tarfile.open(fileobj=io.BytesIO(self.files[SDIST])) as archive:
            archive.extractall(directory, filter="data")
        (package,) = (path for path in directory.iterdir() if path.name.startswith("embedding_pipeline-"))
        options = directory / "options.json"
        options.write_text(json.dumps(options_of(self.environment)))
        variables = {
            "PIPELINE_OPTIONS_FILE": options,
            "SEMI_PERSISTENT_DIRECTORY": directory,
            "PYTHONPATH": package,
            "PYTHONSAFEPATH": 1,
        }
        words = ["env", "-C", directory, *(f"{name}={value}" for name, value in variables.items())]
        words += [sys.executable, "-m", "apache_beam.runners.worker.sdk_worker_main"]
        command = "exec " + shlex.join(map(str, words))
        graph = beam_runner_api_pb2.Pipeline()
        graph.CopyFrom(self.graph)
        for container in graph.components.environments.values():
            container.urn, container.payload = python_urns.SUBPROCESS_SDK, command.encode()
            del container.dependencies[:]
        FnApiRunner().run_via_runner_api(graph, PipelineOptions([])).wait_until_finish()


def options_of(environment: Environment) -> dict[str, object]:
    """Returns the options that the workers of a job get. Whole numbers are integers, as in the JSON of the API."""
    options = json_format.MessageToDict(Environment.pb(environment).sdk_pipeline_options)["options"]
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in options.items()
    }


def run_for_real(gcs: GcsEmulator, directory: Path) -> Play:
    """Returns a play that runs the job."""

    def play(played: PlayedJob) -> Iterator[Moment]:
        failures: list[Exception] = []

        def run() -> None:
            try:
                StagedJob.read(gcs, played.job.environment).run(directory / played.job.id)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while thread.is_alive():
            yield Moment()
        if failures:
            yield Moment(JobState.JOB_STATE_FAILED, (f"Traceback (most recent call last):\n{failures[0]}",))
        else:
            yield Moment(JobState.JOB_STATE_DONE)

    return play
