"""`python -m pipeline.run`: turns images into embeddings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.beam.internals import silence_raised_errors
from pipeline.core.config import RunConfig
from pipeline.core.console import print_line, run_command
from pipeline.job.run import run

if TYPE_CHECKING:
    from pipeline.job.progress import Display
    from pipeline.job.summary import Summary


def format_summary(summary: Summary, output: str) -> str:
    """Returns the lines that the command prints at the end of a run."""
    if not summary.records and summary.skipped:
        first = f"nothing new: all {summary.skipped} records were done by earlier runs"
    else:
        first = (
            f"{summary.embedded} of {summary.records} records embedded in {summary.seconds:.1f} s "
            f"({summary.images_per_second:.0f} images/s), {summary.dimension} values each"
        )
        if summary.skipped:
            first += f"; {summary.skipped} were done by earlier runs"
    damaged = []
    if summary.damaged_but_embedded:
        damaged.append(f"  {summary.damaged_but_embedded} embedded although damaged: see {output}/damaged")
    lines = [
        first,
        *(f"  {count} failed: {reason}" for reason, count in summary.failures_by_reason.items()),
        *damaged,
        f"module {summary.module} ({summary.module_sha256[:12]}), engine {summary.engine}",
        f"data set {output}",
    ]
    return "\n".join(lines)


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
    summary = run(config, _display(config))
    print_line(format_summary(summary, config.output.output))
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
