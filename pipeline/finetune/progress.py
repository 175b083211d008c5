"""The progress of a training: a bar on a terminal, and only whole lines anywhere else."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def training_progress(stream: TextIO) -> Progress:
    """Returns a progress display that is drawn while entered, if the stream is a terminal, and disappears at the end.

    Lines that stay are printed by its `console`, as they are: not wrapped, without markup or colours.

    Args:
      stream: where to write.
    """
    return Progress(
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=stream, soft_wrap=True, markup=False, highlight=False, emoji=False),
        transient=True,
        disable=not stream.isatty(),
    )
