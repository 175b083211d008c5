"""Telling how far a long command is: a bar on a terminal, and nothing but whole lines anywhere else."""

from __future__ import annotations

import time
from typing import TextIO

_BAR_WIDTH = 24
_REDRAW_S = 0.1


class ProgressBar:
    """A bar of plain text at the end of a stream."""

    def __init__(self, stream: TextIO, total: int, done: int = 0) -> None:
        """Begins to count.

        Args:
          stream: where to draw; only if it is a terminal.
          total: the number of steps.
          done: how many of them were done before.
        """
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._total = total
        self._first = self._done = done
        self._started = time.monotonic()
        self._drawn = 0.0
        self._width = 0

    def advance(self, text: str) -> None:
        """Counts a step; `text` stands behind the bar."""
        self._done += 1
        now = time.monotonic()
        if self._is_terminal and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            left_s = (now - self._started) / (self._done - self._first) * (self._total - self._done)
            filled = _BAR_WIDTH * self._done // self._total
            self._draw(f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {_clock(left_s)} left, {text}")

    def line(self, text: str) -> None:
        """Writes a line that stays."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the bar away."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r{text:<{self._width}}")
        self._stream.flush()
        self._width = len(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
