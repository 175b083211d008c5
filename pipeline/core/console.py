"""The frame of every command of this package: logging, signals, errors and exit codes."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from pipeline.core.errors import PipelineError, UsageError
from pipeline.core.quiet import ignore_pillow_warnings
from pipeline.core.suggestions import describe_unknown

INTERRUPTED = 130
_EXPLICIT = re.compile("ignored explicit argument (.*)")
_INTERRUPTED = "interrupted; committed work is kept: start the same command again to continue"


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises each error as a one-line `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raises the error with a text that names the expected value."""
        raise UsageError(_EXPLICIT.sub(r"\1 arrived, but the flag takes no value", message))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises the error about a value that is none of the choices; argparse's own suggests nothing before 3.14."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, describe_unknown(value, map(str, action.choices)))


def run_command(command: Callable[[Sequence[str]], int], args: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; an error that a user can cause becomes one line on stderr.

    The first SIGINT or SIGTERM ends the command in order; the second ends it at once.

    Args:
      command: does the work; gets the arguments and returns the exit code.
      args: the arguments; default: those of the process.
    """
    if args is None:
        _restart_in_utf8_mode()
    _configure_logging()
    # Without the freeze, the interpreter's last garbage collection scans all objects of Beam, which takes 0.6 s.
    atexit.register(gc.freeze)
    signals = _Signals()
    try:
        with signals:
            return command(sys.argv[1:] if args is None else args)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        # After a signal, any exception counts as the interruption: a library may have replaced KeyboardInterrupt.
        if signals.received:
            _complain(_INTERRUPTED)
            # Threads of the runner may still run; their results no longer count.
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        return _exit_code(error)


def _restart_in_utf8_mode() -> None:
    """Starts this process again with Python's UTF-8 mode if file names are not UTF-8 in its locale.

    Otherwise the paths and keys of the same files would differ from those of a run under another locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [os.fsencode(item) for item in (sys.executable, *sys.orig_argv[1:])])


def print_line(line: str) -> None:
    """Writes a line to the standard output; escapes characters that its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))


def _exit_code(error: BaseException) -> int:
    """Reports an error to the user and returns the command's exit code."""
    if isinstance(error, PipelineError):
        _complain(str(error))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _complain(_INTERRUPTED)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader closed the output: the rest of the buffer is dropped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        _complain(describe_os_error(error))
        return 1
    traceback.print_exception(error)
    _complain("this was not expected; please report it with the lines above")
    return 1


def _configure_logging() -> None:
    """Logs to stderr: this package from level INFO, all others from level WARNING, without Pillow's warnings."""
    ignore_pillow_warnings()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(logging.INFO)


def describe_os_error(error: OSError) -> str:
    """Returns the text of an operating system error in one line, with the name of its file."""
    text = error.strerror or " ".join(str(error).split())
    return f"{error.filename}: {text}" if error.filename and str(error.filename) not in text else text


def make_room(text: str) -> str:
    """Returns the first thing to do if an error's text says that a disk is full; else nothing."""
    return "make room there and " if any(os.strerror(number) in text for number in (errno.ENOSPC, errno.EDQUOT)) else ""


def _complain(text: str) -> None:
    sys.stderr.write(f"error: {' '.join(text.splitlines())}\n")


class _Signals:
    """While entered, SIGINT and SIGTERM raise `KeyboardInterrupt` in the main thread, and a second one exits.

    Attributes:
      received: whether a signal arrived.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        if not self.received:
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(INTERRUPTED)
        self.received = True
        raise KeyboardInterrupt
