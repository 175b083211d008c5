"""Beam's options, and the runner that they name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)

from pipeline.beam import internals
from pipeline.beam.job_server import JobServer
from pipeline.core.config import describe_unknown_arg
from pipeline.core.errors import UsageError
from pipeline.core.suggestions import describe_unknown

DIRECT_RUNNER = "DirectRunner"
RUNNERS = (DIRECT_RUNNER, "DataflowRunner", "FlinkRunner", "SparkRunner", "PrismRunner", "PortableRunner")
"""Names of runners, to suggest one of them; Beam has more, and takes the path of any class."""
_FOR_MODULE = "to bring the module to its workers"


def parse_beam_args(args: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options, with those of the job server that they name.

    Raises:
      UsageError: an argument is an option neither of Beam nor of the job server, or the job server must be asked and
        does not answer. Beam itself would only log the argument.
    """
    parser = internals.make_option_parser()
    unknown = _unknown_args(parser, args)
    options = PipelineOptions(list(args))
    if unknown and (server := _job_server(options)):
        server.add_options(parser)
        unknown = _unknown_args(parser, args)
    if unknown:
        beam_flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UsageError(describe_unknown_arg(unknown[0], beam_flags))
    return options


def _unknown_args(parser: argparse.ArgumentParser, args: Sequence[str]) -> list[str]:
    try:
        return parser.parse_known_args(list(args))[1]
    except (argparse.ArgumentError, argparse.ArgumentTypeError, ValueError) as error:
        raise UsageError(f"{error}; see Beam's documentation of this option") from None


def runner_name(options: PipelineOptions) -> str:
    """Returns the name of the runner that the options ask for, `DirectRunner` if they name none."""
    name: str = options.view_as(StandardOptions).runner or DIRECT_RUNNER
    # Beam accepts names in any case, with and without the suffix `Runner`.
    return DIRECT_RUNNER if name.lower() in ("direct", "directrunner") else name


def is_direct(options: PipelineOptions) -> bool:
    """Says whether the pipeline runs on this machine, in or below this process."""
    return runner_name(options) == DIRECT_RUNNER


def runs_in_process(options: PipelineOptions) -> bool:
    """Says whether the pipeline's workers are threads of this process."""
    return is_direct(options) and options.view_as(DirectOptions).direct_running_mode != "multi_processing"


def temp_location(options: PipelineOptions) -> str | None:
    """Returns the directory for temporary files that workers can reach, if the options name one."""
    location: str | None = options.view_as(GoogleCloudOptions).temp_location
    return location


def template_location(options: PipelineOptions) -> str | None:
    """Returns the file to which the job is written instead of being started, if the options name one."""
    location: str | None = options.view_as(GoogleCloudOptions).template_location
    return location


def staging_location(options: PipelineOptions, purpose: str = _FOR_MODULE) -> str | None:
    """Returns the directory that the launcher shares with its workers; None if they run on this machine.

    Args:
      options: Beam's.
      purpose: of the directory, for the error message.

    Raises:
      UsageError: the workers run elsewhere, and the options name no such directory.
    """
    if is_direct(options):
        return None
    location = temp_location(options)
    if location is None:
        raise UsageError(
            f"--runner={runner_name(options)} needs --temp_location=DIRECTORY {purpose}; name one that they can "
            "read too, such as gs://BUCKET/temp"
        )
    return location


def check_options(options: PipelineOptions, purpose: str = _FOR_MODULE) -> None:
    """Checks that the runner accepts the options, before anything is read.

    Args:
      options: Beam's.
      purpose: of the directory that the launcher shares with its workers, for the error message.

    Raises:
      UsageError: there is no such runner, it needs other options, or its job server does not answer.
    """
    runner = make_runner(options)
    staging_location(options, purpose)
    check_job_server(options)
    for name in ("setup_file", "requirements_file"):
        path = getattr(options.view_as(SetupOptions), name)
        if path is not None and not os.path.isfile(path):
            raise UsageError(f"--{name}={path} is not there; expected a file, from the current directory")
    workers = options.view_as(DirectOptions).direct_num_workers
    if workers < 0:
        raise UsageError(f"--direct_num_workers={workers}; expected the number of workers, or 0 for one for each core")
    errors = internals.option_errors(options, runner)
    if errors:
        raise UsageError(f"--runner={runner_name(options)}: {' '.join(errors)} See Beam's documentation of its options")


def check_job_server(options: PipelineOptions) -> None:
    """Checks that the job server answers, if the options name one; Beam would wait for it in silence.

    Raises:
      UsageError: the job server does not answer.
    """
    server = _job_server(options)
    if server is not None:
        server.check()


def _job_server(options: PipelineOptions) -> JobServer | None:
    return None if is_direct(options) else JobServer.of(options, make_runner(options))


def lift_job_deadline(options: PipelineOptions) -> None:
    """Lets a job take longer than `--job_server_timeout`, which is the time for an answer of the job server.

    Beam's portable runner ends its wait for a job at this timeout if the job server runs the job under the id of its
    preparation, as Prism does. `check_job_server` has applied the timeout before.

    Args:
      options: of the pipeline to run, which are a copy of the run's.
    """
    if _job_server(options) is not None:  # Dataflow accepts no option without a value
        options.view_as(PortableOptions).job_server_timeout = None


def make_runner(options: PipelineOptions) -> Any:
    """Returns the runner that the options ask for.

    `DirectRunner` is Beam's FnApiRunner: Beam's class `DirectRunner` may pass the pipeline to a runner that it
    downloads first.

    Raises:
      UsageError: there is no such runner.
    """
    if is_direct(options):
        return internals.make_direct_runner()
    name = runner_name(options)
    try:
        return internals.make_runner(name)
    except ValueError:
        raise UsageError(f"--runner={describe_unknown(name, RUNNERS, 'the path of a class')}") from None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--runner={name} cannot be used: {error}; try DirectRunner or DataflowRunner") from None
