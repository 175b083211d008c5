"""`python -m pipeline.report`: writes a page about a data set."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.console import CommandParser, print_line, run_command


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(
        prog="python -m pipeline.report",
        description="Writes one HTML file about a data set, which a browser shows without a network: the data set's "
        "spec, waves and failures; a map of its vectors; duplicates, outliers, and the neighbours of each image.",
        allow_abbrev=False,
    )
    parser.add_argument("dataset", metavar="OUT", help="directory of the data set, local or gs://")
    parser.add_argument("--output", metavar="FILE", help="the page, local or gs://. Default: OUT/report.html")
    parser.add_argument(
        "--map",
        choices=("pca", "umap"),
        default="pca",
        help="pca: a map by principal components; umap: also one by UMAP, which takes longer and needs the extra "
        "'report'. Default: pca",
    )
    parser.add_argument(
        "--thumbnails",
        type=float,
        default=8,
        metavar="MB",
        help="size of all thumbnails together, in megabytes; 0 for none. Default: 8",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="chooses the sample of more than 10,000 vectors. Default: 0"
    )
    given = parser.parse_args(args)
    if not 0 <= given.thumbnails <= 1000:
        parser.error(f"--thumbnails={given.thumbnails:g}: expected megabytes from 0 to 1000")
    # Imported here, so that --help does not wait for numpy, pyarrow and scikit-learn.
    from pipeline.report.report import ReportSettings, write_report

    settings = ReportSettings(given.map, given.seed, int(given.thumbnails * 1e6))
    written = write_report(given.dataset, settings, given.output)
    vectors = (
        f"{written.vectors:,}" if written.vectors == written.total else f"{written.vectors:,} of {written.total:,}"
    )
    print_line(
        f"{written.path}: {vectors} vectors, {written.thumbnails:,} thumbnails, {written.size_bytes / 1e6:.1f} MB; "
        "open it in a browser"
    )
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command, args)
