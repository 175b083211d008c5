"""`python -m pipeline.run`: turns images into embeddings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.beam.internals import silence_raised_errors
from pipeline.commands.result import describe_result, example_keys
from pipeline.core.config import RunConfig
from pipeline.core.console import print_line, run_command
from pipeline.core.errors import TooManyFailures
from pipeline.job.run import run

if TYPE_CHECKING:
    from pipeline.job.progress import Display
    from pipeline.job.summary import Summary


def _print_result(summary: Summary, output: str) -> None:
    describe_result(summary, output, example_keys(output, summary)).print()


def _display(config: RunConfig) -> Display | None:
    """Returns a live display if a user watches a terminal; else None, for log lines."""
    if config.execution.quiet or not sys.stderr.isatty():
        return None
    from pipeline.commands.progress import TerminalDisplay

    return TerminalDisplay()


def _command(args: Sequence[str]) -> int:
    config = RunConfig.from_args(args)
    if config.execution.dry_run:
        from pipeline.job.dry_run import preview

        print_line(str(preview(config)))
        return 0
    if config.writes_template:
        from pipeline.job.template import write_template

        print_line(str(write_template(config)))
        return 0
    output = config.output.output
    try:
        summary = run(config, _display(config))
    except TooManyFailures:
        from pipeline.job.summary import read_summary

        _print_result(read_summary(output), output)
        raise
    _print_result(summary, output)
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
