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
from collections.abc import Iterator
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


RAISED_ERRORS_LOGGERS = ("apache_beam.runners", "apache_beam.utils.retry")
"""Loggers to which Beam writes the stack trace of each failure that it also raises."""


def silence_raised_errors() -> None:
    """Drops Beam's log of failures that it also raises. For commands, which print such a failure in one line."""
    for name in RAISED_ERRORS_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger().addFilter(_is_no_job_error)


def _is_no_job_error(record: logging.LogRecord) -> bool:
    """Drops the errors of a remote job, which Beam's portable runner logs to the root logger before it raises them."""
    return not (record.module == "portable_runner" and record.levelno >= logging.ERROR)


def without_step_note(text: str) -> str:
    """Returns the message of a DoFn's exception without the note of its step that Beam appends."""
    return text.partition(" [while running ")[0]


@contextlib.contextmanager
def polling_errors() -> Iterator[list[BaseException]]:
    """Collects the errors that end Beam's thread that asks Dataflow for the state of a job.

    Beam does not raise them; Python would print them with a traceback.
    """
    errors: list[BaseException] = []
    before = threading.excepthook

    def collect(ended: threading.ExceptHookArgs) -> None:
        functions = {frame.f_code.co_name for frame, _ in traceback.walk_tb(ended.exc_traceback)}
        if _POLLING in functions and ended.exc_value is not None:
            errors.append(ended.exc_value)
        else:
            before(ended)

    threading.excepthook = collect
    try:
        yield errors
    finally:
        threading.excepthook = before


_POLLING = "poll_for_job_completion"
"""The method of Beam's DataflowRunner that asks for the state of a job."""
