"""What every command of this package does around its work: logging, signals, errors and exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from pipeline.errors import PipelineError, UsageError

INTERRUPTED = 130


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are `UsageError`s, and so one line."""

    def error(self, message: str) -> NoReturn:
        """Raises the error."""
        raise UsageError(message)


def run_command(command: Callable[[Sequence[str]], int], args: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; an error that a user can cause becomes one line on stderr.

    SIGINT and SIGTERM end the command in order; a second one ends it at once.

    Args:
      command: does the work; gets the arguments and returns the exit code.
      args: the arguments; default: those of the process.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    signals = _Signals()
    try:
        with signals:
            return command(sys.argv[1:] if args is None else args)
    except PipelineError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; what was committed is kept: start the same command again to go on from there")
        if signals.received:
            # Threads of the runner may still be at work; nothing that they do counts any more.
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is left in its buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(describe_os_error(error))
        return 1
    except Exception:
        traceback.print_exc()
        _complain("this was not expected; please report it with the lines above")
        return 1


def describe_os_error(error: OSError) -> str:
    """Returns what an operating system error says, in one line, with the file that it is about."""
    text = error.strerror or " ".join(str(error).split())
    return f"{error.filename}: {text}" if error.filename and str(error.filename) not in text else text


def _complain(text: str) -> None:
    sys.stderr.write(f"error: {' '.join(text.splitlines())}\n")


class _Signals:
    """While entered, SIGINT and SIGTERM raise `KeyboardInterrupt` in the main thread, and a second one exits.

    Attributes:
      received: whether one came.
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
