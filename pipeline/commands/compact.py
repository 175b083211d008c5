"""`python -m pipeline.compact`: merges the waves of a data set and drops superseded rows."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.beam.internals import silence_raised_errors
from pipeline.commands.runner import DatasetParser, remote_options
from pipeline.core.console import print_line, run_command


def _command(args: Sequence[str]) -> int:
    parser = DatasetParser(
        "pipeline.compact", "Merges the waves of a data set into one and drops the rows that newer waves supersede."
    )
    parser.add_argument("--steal_lock", action="store_true", help="take over from a process that seems to be alive")
    given, beam_args = parser.parse_known_args(args)
    options = remote_options(given, beam_args)
    if options is None:
        from pipeline.dataset.compact import compact

        done = compact(given.output, steal_lock=given.steal_lock)
    else:
        from pipeline.job.maintain import compact_on_runner

        done = compact_on_runner(given.output, options, steal_lock=given.steal_lock)
    if done.waves < 2 and not done.rows:
        print_line("nothing to do: the data set has one wave")
    elif done.waves < 2:
        print_line(f"the wave was written again, with a folder for each format: {done.rows} rows kept")
    else:
        print_line(f"{done.waves} waves became one: {done.rows} rows kept, {done.superseded} superseded dropped")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
