"""All use of undocumented parts of Apache Beam, which a new version may change without notice.

Each function checks these parts where that is cheap, and `tests/beam/test_internals.py` checks the rest. Functions
import Beam when they need it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def _relies_on(thing: str) -> str:
    import apache_beam

    return f"Beam {apache_beam.__version__} changed {thing}, which pipeline.beam.internals relies on"


@contextlib.contextmanager
def _relying_on(thing: str) -> Iterator[None]:
    """Raises an error that names the part of Beam that has changed.

    Raises:
      ImportError: Beam no longer has a module or an attribute that the body uses, or a call takes other arguments.
    """
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        raise ImportError(f"{_relies_on(thing)}: {error}") from error


def make_option_parser() -> argparse.ArgumentParser:
    """Returns a parser of all options of Beam. Beam's public function only logs an unknown argument.

    Raises:
      ImportError: this version of Beam declares its options in another way.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    with _relying_on("PipelineOptions._add_argparse_args"):
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(parser)
    return parser


def make_direct_runner() -> Any:
    """Returns the runner in this process, Beam's FnApiRunner.

    Raises:
      ImportError: this version of Beam has it elsewhere.
    """
    with _relying_on("FnApiRunner"):
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        return FnApiRunner()


def make_runner(name: str) -> Any:
    """Returns a new runner by its name, or by the full name of its class.

    Raises:
      ValueError: Beam has no runner of this name.
      ImportError: the module of the class cannot be imported, or this version of Beam makes runners in another way.
      AttributeError: the module has no such class.
    """
    with _relying_on("create_runner"):
        from apache_beam.runners.runner import create_runner
    return create_runner(name)


def option_errors(options: PipelineOptions, runner: Any) -> list[str]:
    """Returns the errors that a runner finds in options, one text for each.

    Raises:
      ImportError: this version of Beam validates options in another way.
    """
    with _relying_on("PipelineOptionsValidator"):
        from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

        return list(PipelineOptionsValidator(options, runner).validate())


def is_portable(runner: Any) -> bool:
    """Says whether a runner submits its jobs to a job server, such as PortableRunner, FlinkRunner and SparkRunner.

    Raises:
      ImportError: this version of Beam has the class of these runners elsewhere.
    """
    with _relying_on("PortableRunner"):
        from apache_beam.runners.portability.portable_runner import PortableRunner

        return isinstance(runner, PortableRunner)


def describe_job_options(endpoint: str, timeout_s: float) -> Sequence[Any]:
    """Asks a job server for the options that it accepts, as Beam's portable runner does for each job.

    Args:
      endpoint: `HOST:PORT` of the job server. The question waits for a server that is not up yet.
      timeout_s: the longest time to wait for the answer.

    Returns:
      Messages of type `PipelineOptionDescriptor`; see `add_job_options`.

    Raises:
      grpc.RpcError: no job server answered in time, or it refused.
      ImportError: this version of Beam asks in another way.
    """
    import grpc

    with _relying_on("DescribePipelineOptions"):
        from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        make_stub = beam_job_api_pb2_grpc.JobServiceStub
    with grpc.insecure_channel(endpoint) as channel:
        answer = make_stub(channel).DescribePipelineOptions(request, timeout=timeout_s, wait_for_ready=True)
    options: Sequence[Any] = answer.options
    return options


def add_job_options(parser: argparse.ArgumentParser, options: Sequence[Any]) -> None:
    """Adds the options of a job server to a parser, with the types that Beam's portable runner gives them.

    Args:
      parser: knows Beam's options, which a job server declares too.
      options: from `describe_job_options`.

    Raises:
      ImportError: this version of Beam describes options in another way.
    """
    known = {flag for action in parser._actions for flag in action.option_strings}
    with _relying_on("PipelineOptionType"):
        from apache_beam.portability.api import beam_job_api_pb2

        kinds = beam_job_api_pb2.PipelineOptionType
        for option in options:
            flag = f"--{option.name}"
            if flag in known:
                continue
            if option.type == kinds.BOOLEAN:
                parser.add_argument(flag, action="store_false" if option.default_value == "true" else "store_true")
            elif option.type == kinds.INTEGER:
                parser.add_argument(flag, type=int)
            else:
                parser.add_argument(flag, action="append" if option.type == kinds.ARRAY else "store")


RAISED_ERRORS_LOGGERS = ("apache_beam.runners", "apache_beam.utils.retry")
"""Loggers to which Beam writes the stack trace of each failure that it also raises."""
OPTIONS_LOGGER = "apache_beam.options.pipeline_options"
"""Logger to which Beam writes each argument that it does not know, such as the options of a job server."""
MESSAGES_THREAD = "wait_until_finish_read"
"""Name of the thread in which Beam's portable runner reads the messages of a job."""


def current_metrics(result: Any) -> Any:
    """Returns the metrics of a job now; the result of a portable runner would repeat its first answer for ever.

    Args:
      result: Beam's `PipelineResult` of the job.
    """
    if hasattr(result, "_metrics"):
        result._metrics = None
    return result.metrics()


def silence_raised_errors() -> None:
    """Drops what Beam prints of failures that it also raises, and of arguments that `pipeline.beam.options` checks.

    For commands, which print such a failure in one line.
    """
    for name in RAISED_ERRORS_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger().addFilter(_is_no_job_error)
    logging.getLogger(OPTIONS_LOGGER).addFilter(_is_no_unknown_argument)
    _take_thread_errors(_is_of_the_messages_thread)


def _is_of_the_messages_thread(ended: threading.ExceptHookArgs) -> bool:
    """Says whether an error ends the thread of a job's messages. The thread that waits for the job raises it, too."""
    return ended.thread is not None and ended.thread.name == MESSAGES_THREAD


def _is_no_job_error(record: logging.LogRecord) -> bool:
    """Drops the errors of a remote job, which Beam's portable runner logs to the root logger before it raises them."""
    return not (record.module == "portable_runner" and record.levelno >= logging.ERROR)


def _is_no_unknown_argument(record: logging.LogRecord) -> bool:
    """Drops the warning of an argument that Beam does not know."""
    return not str(record.msg).startswith("Unparseable argument")


def without_step_note(text: str) -> str:
    """Returns the message of a DoFn's exception without the note of its step that Beam appends."""
    return text.partition(" [while running ")[0]


@contextlib.contextmanager
def polling_errors() -> Iterator[list[BaseException]]:
    """Collects the errors that end Beam's thread that asks Dataflow for the state of a job.

    Beam does not raise them; Python would print them with a traceback.
    """
    errors: list[BaseException] = []

    def collect(ended: threading.ExceptHookArgs) -> bool:
        functions = {frame.f_code.co_name for frame, _ in traceback.walk_tb(ended.exc_traceback)}
        if _POLLING not in functions or ended.exc_value is None:
            return False
        errors.append(ended.exc_value)
        return True

    before = _take_thread_errors(collect)
    try:
        yield errors
    finally:
        threading.excepthook = before


_POLLING = "poll_for_job_completion"
"""The method of Beam's DataflowRunner that asks for the state of a job."""


def _take_thread_errors(take: Callable[[threading.ExceptHookArgs], bool]) -> Callable[[threading.ExceptHookArgs], Any]:
    """Shows `take` each error that ends a thread; one for which it returns False goes to the hook before.

    Returns:
      The hook before, with which the caller may replace the new one.
    """
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if not take(ended):
            before(ended)

    threading.excepthook = hook
    return before
