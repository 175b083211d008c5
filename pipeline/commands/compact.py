"""`python -m pipeline.compact`: merges the waves of a data set and drops superseded rows."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.beam.internals import silence_raised_errors
from pipeline.core.console import CommandParser, print_line, run_command
from pipeline.dataset.compact import compact


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(
        prog="python -m pipeline.compact",
        description="Merges the waves of a data set into one and drops the rows that newer waves supersede.",
        allow_abbrev=False,
    )
    parser.add_argument("output", metavar="OUT", help="directory of the data set, local or gs://")
    done = compact(parser.parse_args(args).output)
    if done.waves < 2:
        print_line("nothing to do: the data set has one wave")
    else:
        print_line(f"{done.waves} waves became one: {done.rows} rows kept, {done.superseded} superseded dropped")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
