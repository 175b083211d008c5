"""The progress of a run on a terminal: one live line, which disappears at the end."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pipeline.job.progress import Status, format_duration


class TerminalDisplay:
    """Draws the status and a bar on stderr. Log lines go above it."""

    interval_s = 0.5

    def __init__(self, console: Console | None = None) -> None:
        """Draws nothing yet.

        Args:
          console: where to draw; default: stderr.
        """
        self._progress = Progress(
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:>3.0f} %  {task.description}", markup=False),
            console=console or Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False),
            refresh_per_second=2,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=1.0)
        self._redirected: list[logging.StreamHandler[Any]] = []

    def __enter__(self) -> TerminalDisplay:
        before = sys.stderr
        self._progress.start()
        # The bar replaces sys.stderr, so that other lines move it down; handlers hold the stream from before.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(sys.stderr)
                self._redirected.append(handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for handler in self._redirected:
            handler.setStream(sys.stderr)
        self._redirected.clear()

    def show(self, status: Status) -> None:
        """See `pipeline.job.progress.Display`."""
        self._progress.update(self._task, completed=status.share, description=_short(status))


def _short(status: Status) -> str:
    """Returns a text that fits into 80 columns beside the bar."""
    parts = [f"wave {status.wave} of {status.waves}"] if status.waves > 1 else []
    if status.done.embedded or status.done.failed:
        parts.append(f"{status.done.embedded} images, {status.images_per_second:.0f}/s")
    if status.done.failed:
        parts.append(f"{status.done.failed} failed")
    if status.seconds_left is not None:
        parts.append(f"{format_duration(status.seconds_left)} left")
    return ", ".join(parts) or format_duration(status.seconds)
