"""How long the steps of starting up take, which `--verbose` tells."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def timed(step: str) -> Iterator[None]:
    """Logs, at level DEBUG, how long the body took."""
    started = time.monotonic()
    yield
    log_step(step, time.monotonic() - started)


def log_step(step: str, seconds: float) -> None:
    """Logs, at level DEBUG, how long a step of starting up took."""
    _log.debug("start-up: %.2f s %s", seconds, step)
