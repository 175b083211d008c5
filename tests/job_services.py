"""Beam's own job service on a port of this machine, in the place of Flink's or Spark's."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.local_job_service import LocalJobServicer

INTEGER = beam_job_api_pb2.PipelineOptionType.INTEGER
BOOLEAN = beam_job_api_pb2.PipelineOptionType.BOOLEAN
ARRAY = beam_job_api_pb2.PipelineOptionType.ARRAY
STRING = beam_job_api_pb2.PipelineOptionType.STRING

OPTIONS = {
    "number_of_execution_retries": INTEGER,
    "reuse_object": BOOLEAN,
    "files_to_stage": ARRAY,
    "state_backend": STRING,
    "temp_location": STRING,
}
"""Options of a job server, by name; Beam's own SDK has the last one, too."""


class JobService(LocalJobServicer):
    """A job service that declares options, and keeps those of its jobs.

    Attributes:
      endpoint: its address.
      asked: how often its options were asked for.
      submitted: the options of each job that it received.
    """

    def __init__(self, options: dict[str, int], port: int) -> None:
        super().__init__()
        self._options = options
        self.asked = 0
        self.submitted: list[dict[str, Any]] = []
        self.endpoint = f"localhost:{self.start_grpc_server(port)}"

    def DescribePipelineOptions(self, request: Any, context: Any = None, timeout: Any = None) -> Any:
        self.asked += 1
        described = [
            beam_job_api_pb2.PipelineOptionDescriptor(name=name, type=kind) for name, kind in self._options.items()
        ]
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=described)

    def create_beam_job(self, preparation_id: str, job_name: str, pipeline: Any, options: Any) -> Any:
        self.submitted.append({key.split(":")[2]: value for key, value in options.items()})
        return super().create_beam_job(preparation_id, job_name, pipeline, options)

    @property
    def jobs(self) -> Sequence[str]:
        """The ids of the jobs that it received."""
        return tuple(self._jobs)


@contextlib.contextmanager
def job_service(options: dict[str, int] = OPTIONS, port: int = 0) -> Iterator[JobService]:
    """Runs a job service while entered, on a free port by default."""
    service = JobService(options, port)
    try:
        yield service
    finally:
        service.stop(None)


def worker_args(endpoint: str, directory: Path, setup: str = "") -> list[str]:
    """Returns the options for jobs of a job service whose workers are processes.

    Args:
      endpoint: of the job service.
      directory: the current directory of the workers, from which they import.
      setup: Python code that each worker runs first.
    """
    code = f"{setup}\nimport runpy; runpy.run_module('apache_beam.runners.worker.sdk_worker_main', run_name='__main__')"
    command = f"cd {shlex.quote(str(directory))} && exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    return [
        "--runner=PortableRunner",
        f"--job_endpoint={endpoint}",
        f"--environment_type={python_urns.SUBPROCESS_SDK}",
        f"--environment_config={command}",
    ]


def hide(package: str) -> str:
    """Returns Python code after which a package cannot be imported, as if it were not installed."""
    return f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
