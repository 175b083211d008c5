"""`python -m pipeline.verify`: checks a data set."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.beam.internals import silence_raised_errors
from pipeline.core.console import CommandParser, print_line, run_command
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.verify import find_strays, show_failure, verify
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(
        prog="python -m pipeline.verify", description="Checks a data set against its manifests.", allow_abbrev=False
    )
    parser.add_argument("output", metavar="OUT", help="directory of the data set, local or gs://")
    parser.add_argument(
        "--delete_strays", action="store_true", help="remove files of the data set's directories that no manifest names"
    )
    parser.add_argument("--show", metavar="KEY", help="write the original bytes of the failure with this key to a file")
    parser.add_argument("--to", metavar="FILE", help="the file for --show. Default: failure.bin", default="failure.bin")
    options = parser.parse_args(args)
    output = filesystem.normalize(options.output)
    if options.show is not None:
        failure = show_failure(output, options.show, options.to)
        print_line(f"{options.to}: the bytes of {failure.source}")
        print_line(f"{failure.reason}: {failure.message}")
        return 0
    report = verify(output)
    strays = report.strays
    if options.delete_strays and strays:
        with DatasetLock(output):
            strays = tuple(find_strays(output, read_manifests(output)))
            filesystem.delete(strays)
        print_line(f"removed {len(strays)} files that no manifest names")
        strays = ()
    for line in (
        *report.problems,
        *(f"{path}: no manifest names it; remove it with --delete_strays" for path in strays),
    ):
        print_line(f"problem: {line}")
    state = "damaged" if report.problems else f"complete, but {len(strays)} strays" if strays else "complete"
    print_line(
        f"{report.waves} waves, {report.rows} rows, {report.superseded} superseded, {report.failures} failures; {state}"
    )
    return 1 if report.problems or strays else 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
