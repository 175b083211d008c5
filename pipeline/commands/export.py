"""`python -m pipeline.export`: a data set in another system's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from pipeline.core.console import CommandParser, print_line, run_command
from pipeline.core.errors import UsageError
from pipeline.export.registry import DESTINATIONS


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(
        prog="python -m pipeline.export",
        description="Writes the committed rows of a data set, the newest of each key, in another system's form. "
        "The same command again writes only what changed.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="OUT", help="directory of the data set, local or gs://")
    parser.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(DESTINATIONS.names))
    parser.add_argument("--output", required=True, metavar="DIR", help="directory of the export, local or gs://")
    parser.add_argument(
        "--existing_only", action="store_true", help="leave out rows whose input does not exist any more"
    )
    parser.add_argument("--columns", metavar="A,B", help="copied columns to export; empty for none. Default: all")
    parser.add_argument(
        "--index",
        default="auto",
        metavar="KIND",
        help="--to=faiss: flat, ivf or hnsw. Default: flat up to a million rows, else ivf",
    )
    given = parser.parse_args(args)
    # Imported here, so that --help does not wait for pyarrow.
    from pipeline.export.base import ExportSettings, IndexKind
    from pipeline.export.run import export

    if given.index not in get_args(IndexKind):
        raise UsageError(f"--index={given.index!r} is unknown; expected one of {', '.join(get_args(IndexKind))}")
    columns = None if given.columns is None else [name for name in given.columns.split(",") if name]
    settings = ExportSettings(given.output, given.index)
    done = export(given.source, given.to, settings, columns=columns, existing_only=given.existing_only)
    if done.written or done.removed:
        print_line(
            f"{done.rows} rows in {given.output}: {done.written} files written "
            f"({done.written_bytes / 1e6:.1f} MB), {done.kept} kept, {done.removed} removed"
        )
    else:
        print_line(f"nothing to do: {given.output} has all {done.rows} rows")
    if done.advice:
        print_line(done.advice)
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command, args)
