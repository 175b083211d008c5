"""Durations of the start-up steps, which `--verbose` logs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def timed(step: str) -> Iterator[None]:
    """Logs the duration of the body at level DEBUG."""
    started = time.monotonic()
    yield
    log_step(step, time.monotonic() - started)


def log_step(step: str, seconds: float) -> None:
    """Logs the duration of a start-up step at level DEBUG."""
    _log.debug("start-up: %.2f s %s", seconds, step)
