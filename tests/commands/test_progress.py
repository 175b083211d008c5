import io
import logging
import sys

from rich.console import Console

from pipeline.commands.progress import TerminalDisplay
from pipeline.embedding.tally import Tally
from pipeline.job.progress import Status


def test_a_line_with_a_bar_that_disappears(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    logger = logging.getLogger()
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        with TerminalDisplay(Console(file=terminal, force_terminal=True, width=80, soft_wrap=True)) as display:
            display.show(Status(2, 5, Tally(500, 7, 9), 10.0, 0.25))
            display._progress.refresh()
            logger.warning("a line of the log")
        after = len(terminal.getvalue())
        logger.warning("later")
    finally:
        logger.removeHandler(handler)
    shown = terminal.getvalue()
    assert "25 %" in shown
    assert "wave 2 of 5, 500 images, 50/s, 7 failed, 0:00:30 left" in shown
    assert "a line of the log\n" in shown
    assert shown[:after].endswith("\x1b[2K"), "the bar is erased"
    assert shown[after:] == "later\n"
    assert sys.stderr is terminal
