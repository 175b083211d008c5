"""The job server of a portable runner: whether it answers, and the options that it accepts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from pipeline.beam import internals
from pipeline.core.errors import UsageError

ANSWER_S = 10
"""Seconds that a job server has for its first answer, unless `--job_server_timeout` is given."""

_IN_PROCESS = "embed"
"""The `--job_endpoint` of Beam's own job service, which Beam starts in this process."""


@dataclass(frozen=True)
class JobServer:
    """A job server that runs already.

    Attributes:
      endpoint: its `HOST:PORT`, from `--job_endpoint`.
      timeout_s: the longest time to wait for an answer.
    """

    endpoint: str
    timeout_s: int

    @classmethod
    def of(cls, options: PipelineOptions, runner: Any) -> JobServer | None:
        """Returns the job server that a runner needs; None if the runner needs none or starts it itself.

        Args:
          options: Beam's.
          runner: from `pipeline.beam.options.make_runner`.

        Raises:
          UsageError: the runner needs a job server, and the options name none.
        """
        if not internals.is_portable(runner):
            return None
        portable = options.view_as(PortableOptions)
        if portable.job_endpoint is None and type(runner).__name__ == "PortableRunner":
            raise UsageError("--runner=PortableRunner needs --job_endpoint=HOST:PORT, the address of a job server")
        if portable.job_endpoint in (None, _IN_PROCESS):
            return None
        is_given = portable.job_server_timeout != PortableOptions([]).job_server_timeout
        return cls(portable.job_endpoint, portable.job_server_timeout if is_given else ANSWER_S)

    def check(self) -> None:
        """Checks that the job server answers.

        Raises:
          UsageError: it does not.
        """
        self._describe_options()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options that the job server accepts to a parser of Beam's options.

        Raises:
          UsageError: the job server does not answer.
        """
        internals.add_job_options(parser, self._describe_options())

    def _describe_options(self) -> Sequence[Any]:
        import grpc

        try:
            return internals.describe_job_options(self.endpoint, self.timeout_s)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise UsageError(
                    f"--job_endpoint={self.endpoint}: the server there is no job server of Beam "
                    f"({describe_rpc_error(error)}); name the job server's HOST:PORT"
                ) from error
            raise UsageError(
                f"--job_endpoint={self.endpoint}: no job server answered within {self.timeout_s} s; expected the "
                "HOST:PORT of one that is running; start it (on this machine, `scripts/cluster.sh flink up` does), or "
                "wait longer with --job_server_timeout=SECONDS"
            ) from error


def describe_rpc_error(error: Any) -> str:
    """Returns the text of a `grpc.RpcError` in one line; the exception's own text has many."""
    return f"{error.code().name}: {' '.join((error.details() or 'no details').split())}"
