"""Runs a pipeline to its end, and explains its failure."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from pipeline.beam import dataflow
from pipeline.beam import options as beam_options
from pipeline.beam.internals import without_step_note
from pipeline.beam.job_server import describe_rpc_error
from pipeline.beam.worker_errors import cause_of
from pipeline.core.console import make_room
from pipeline.core.errors import PipelineError, UsageError

_log = logging.getLogger(__name__)

_MAX_REASON_CHARACTERS = 500
_NO_REASONS = ("", "None", "Driver stacktrace:")
"""Lines that are no reason: of Dataflow's text for a job without one, and of Spark's before the driver's own stack."""
_BEFORE_REASON = ", Error:"
"""Dataflow's text of a failure is `... State: FAILED, Error:`, and a line with the reason or `None`."""
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named \\*['\"]([\w.]+)")
_MISSING_NAME = re.compile(r"Can't get attribute \\*['\"](\w+)\\*['\"] on <module \\*['\"]pipeline[.'\"\\]")
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class JobTexts:
    """The texts of a job's messages.

    Attributes:
      job: names the job, such as `the job of wave 00000`.
      failed: the effect of a failure, such as `wave 00000 failed and was not committed`.
      advice: on what to do after a failure.
      leftover: the effect of a job that goes on after an interruption because its runner cannot cancel it.
    """

    job: str
    failed: str
    advice: str
    leftover: str


def run_pipeline(
    build: Callable[[beam.Pipeline], object],
    options: PipelineOptions,
    texts: JobTexts,
    watch: Callable[[PipelineResult], None] = lambda _: None,
) -> None:
    """Runs a pipeline to its end; if the user interrupts, cancels a remote job.

    Args:
      build: adds the transforms to the pipeline.
      options: Beam's.
      texts: of the messages.
      watch: is called with the job when it has started.

    Raises:
      UsageError: the job server does not answer any more, or a worker cannot fulfil the request.
      PipelineError: the pipeline failed.
    """
    beam_options.check_job_server(options)
    pipeline = beam.Pipeline(runner=beam_options.make_runner(options), options=options)
    beam_options.lift_job_deadline(pipeline.options)
    build(pipeline)
    try:
        result = pipeline.run()
        watch(result)
        if address := dataflow.console_address(result, options):
            _log.info("%s is at %s", texts.job, address)
        _wait(result, texts)
    except Exception as error:
        cause = _explain(error, options, texts)
        raise cause from (cause.__cause__ if cause is error else error)


def _explain(error: Exception, options: PipelineOptions, texts: JobTexts) -> Exception:
    """Returns the error of a failed pipeline for the user: its cause, `error` itself, or a summary of `error`."""
    cause = cause_of(error)
    if isinstance(cause, UsageError):  # its message says what to do; a second start would not help
        return cause
    if cause is not None:
        # Keeps the class, and with it the exit code.
        cause.args = (f"{texts.failed}: {cause}; {make_room(str(cause))}{texts.advice}",)
        return cause
    if isinstance(error, dataflow.LostJobError):
        return PipelineError(
            f"{texts.job} may go on, but its state is unknown ({error}): cancel it; {texts.leftover}; {texts.advice}"
        )
    if ended := dataflow.ended_by_others(error):
        return PipelineError(f"{texts.job} {ended}; {texts.advice}")
    if isinstance(error, PipelineError | OSError) or beam_options.is_direct(options):
        return error
    runner = beam_options.runner_name(options)
    if isinstance(error, grpc.RpcError) and error.code() in _LOST:
        return PipelineError(
            f"the connection to the job server of {runner} was lost ({describe_rpc_error(error)}); {texts.job} may go "
            f"on there, but {texts.leftover}: stop it, and {texts.advice}"
        )
    missing = _missing_on_worker(str(error), runner)
    if missing is not None:
        return missing
    reason = describe_rpc_error(error) if isinstance(error, grpc.RpcError) else last_line(str(error))
    return PipelineError(f"{texts.job} failed on {runner}: {reason}; see the runner's logs, and {texts.advice}")


def _missing_on_worker(text: str, runner: str) -> UsageError | None:
    """Returns the error for workers without the packages of the launcher; None if a failure has another reason.

    Such a worker cannot unpickle the pipeline, so it cannot report the cause itself.

    Args:
      text: of the failure.
      runner: name of the runner.
    """
    found = _MISSING_MODULE.search(text)
    name = found[1] if found else "pipeline"
    if not found and not _MISSING_NAME.search(text):
        return None
    if name.partition(".")[0] == "pipeline":
        return UsageError(
            f"a worker of {runner} lacks this package, or has another version of it ({last_line(text)}); install the "
            "launcher's version where the workers run: in their image, or with --setup_file=./setup.py"
        )
    return UsageError(
        f"a worker of {runner} lacks the Python module {name}; install the packages of requirements.lock where the "
        "workers run"
    )


def last_line(text: str) -> str:
    """Returns the last line of a failure's text that names an error, not a stack frame.

    Some runners escape line breaks. Stack frames are indented, in Python and in Java.
    """
    lines = text.replace("\\n", "\n").replace("\\t", "\t").splitlines()
    named = [line.strip() for line in lines if line.strip() not in _NO_REASONS and not line[0].isspace()]
    reason = without_step_note(named[-1]).removesuffix(_BEFORE_REASON) if named else "no reason given"
    return reason if len(reason) <= _MAX_REASON_CHARACTERS else f"{reason[:_MAX_REASON_CHARACTERS]}..."


def _wait(result: PipelineResult, texts: JobTexts) -> None:
    """Waits for a pipeline to finish; if the user interrupts, cancels a remote job.

    Raises:
      RuntimeError: the pipeline ended without success, and its runner returned this as its state.
    """
    try:
        state = dataflow.wait(result)
        if state not in (None, PipelineState.DONE):
            raise RuntimeError(f"it ended in state {state}")
    except KeyboardInterrupt:
        _log.warning("interrupted: cancelling %s", texts.job)
        try:
            result.cancel()
        except Exception as error:  # any error of the runner: the interrupt has priority
            _log.warning("the job could not be cancelled (%s); %s", error, texts.leftover)
        raise
