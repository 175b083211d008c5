"""`python -m pipeline.verify`: checks a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.beam.internals import silence_raised_errors
from pipeline.commands.runner import DatasetParser, remote_options
from pipeline.core.console import print_line, run_command
from pipeline.core.errors import UsageError
from pipeline.storage import filesystem

if TYPE_CHECKING:
    from pipeline.dataset.recompute import Recomputation
    from pipeline.dataset.verify import Report


def _command(args: Sequence[str]) -> int:
    parser = DatasetParser("pipeline.verify", "Checks a data set against its manifests.")
    parser.add_argument(
        "--delete_strays", action="store_true", help="remove files of the data set's directories that no manifest names"
    )
    parser.add_argument("--show", metavar="KEY", help="write the original bytes of the failure with this key to a file")
    parser.add_argument("--to", metavar="FILE", help="the file for --show. Default: failure.bin", default="failure.bin")
    parser.add_argument(
        "--recompute",
        type=float,
        metavar="SHARE",
        help="embed this share of the rows again, such as 0.001, and compare the vectors, instead of the check; takes "
        "--input and other flags of pipeline.run; those that the data set's spec determines can be left out",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="DIFFERENCE",
        help="--recompute: largest relative L2 difference that counts as equal. Default: 1e-4",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="--recompute: chooses the rows. Default: 0")
    given, beam_args = parser.parse_known_args(args)
    if given.recompute is not None:
        return _print_recomputation(_recompute(given, beam_args), given)
    report = _report(given, beam_args)
    return 0 if report is None else _print_report(report, given)


def _recompute(given: argparse.Namespace, run_args: Sequence[str]) -> Recomputation:
    if given.runner is not None:
        raise UsageError(f"--recompute embeds in this process; leave --runner={given.runner} out")
    if given.delete_strays or given.show is not None:
        raise UsageError("--recompute checks no files; leave --delete_strays and --show out")
    from pipeline.dataset.recompute import Sample
    from pipeline.job.recompute import recompute

    return recompute(given.output, run_args, Sample(given.recompute, given.seed), given.tolerance)


def _print_recomputation(found: Recomputation, given: argparse.Namespace) -> int:
    for line in found.problems:
        print_line(f"problem: {line}")
    print_line(
        f"recomputed {found.sampled} of {found.rows} rows: {found.identical} identical, {found.close} within "
        f"{given.tolerance:g}, {found.different} different, {found.missing} missing; largest difference "
        f"{found.largest:.1e}"
    )
    return 1 if found.problems else 0


def _report(given: argparse.Namespace, beam_args: Sequence[str]) -> Report | None:
    """Returns the report on the data set, or None after `--show`."""
    options = remote_options(given, beam_args)
    # Imported here, so that --help does not wait for numpy, pyarrow and Beam.
    from pipeline.dataset.verify import show_failure, verify

    if given.show is not None:
        failure = show_failure(given.output, given.show, given.to)
        print_line(f"{given.to}: the bytes of {failure.source}")
        print_line(f"{failure.reason}: {failure.message}")
        return None
    if options is None:
        return verify(given.output)
    from pipeline.job.maintain import verify_on_runner

    return verify_on_runner(given.output, options)


def _print_report(report: Report, given: argparse.Namespace) -> int:
    strays = report.strays
    if given.delete_strays and strays:
        print_line(f"removed {_delete_strays(filesystem.normalize(given.output))} files that no manifest names")
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


def _delete_strays(output: str) -> int:
    """Removes the files that no manifest names; returns their number."""
    from pipeline.dataset.metadata import read_manifests
    from pipeline.dataset.ownership import remove_remains
    from pipeline.dataset.verify import find_strays
    from pipeline.storage.lock import DatasetLock

    with DatasetLock(output) as directory:
        strays = find_strays(output, read_manifests(output))
        remove_remains(directory)
        directory.remove(find_strays(output, read_manifests(output)))
    return len(strays)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    silence_raised_errors()
    return run_command(_command, args)
