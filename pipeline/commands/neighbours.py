"""`python -m pipeline.neighbours`: finds the nearest vectors of a data set."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.console import CommandParser, print_line, run_command


def _command(args: Sequence[str]) -> int:
    parser = CommandParser(
        prog="python -m pipeline.neighbours",
        description="Prints the keys of the vectors that are nearest to that of an image, with the cosine similarity "
        "and the L2 distance. Reads the data set once, in bounded memory.",
        allow_abbrev=False,
    )
    parser.add_argument("dataset", metavar="OUT", help="directory of the data set, local or gs://")
    parser.add_argument(
        "image_or_key",
        metavar="IMAGE_OR_KEY",
        help="a key of the data set; or an image file, which is embedded with the data set's module",
    )
    parser.add_argument("--count", type=int, default=10, metavar="N", help="number of neighbours. Default: 10")
    parser.add_argument("--html", action="store_true", help="show the images, in a browser")
    parser.add_argument("--output", metavar="FILE", help="--html: the page. Default: a new temporary file")
    parser.add_argument("--module", metavar="HANDLE", help="the module, if it has moved. Default: that of the data set")
    parser.add_argument("--allow_unsafe_module", action="store_true", help="see pipeline.run")
    given = parser.parse_args(args)
    if given.output is not None and not given.html:
        parser.error(f"--output={given.output} names the page of --html; add --html")
    # Imported here, so that --help does not wait for numpy, pyarrow and TensorFlow.
    from pipeline.report.neighbours import find_neighbours, find_query, neighbours_page
    from pipeline.report.text import show_key

    query = find_query(
        given.dataset, given.image_or_key, module=given.module, allow_unsafe_module=given.allow_unsafe_module
    )
    found = find_neighbours(given.dataset, query, given.count)
    for item in found:
        print_line(f"cosine {item.cosine:7.4f}  distance {item.distance:10.4g}  {show_key(item.key)}")
    if given.html:
        _show(neighbours_page(given.dataset, query, found), given.output)
    return 0


def _show(page: bytes, output: str | None) -> None:
    """Writes a page to a file and opens it in the browser, if there is one."""
    from pipeline.storage import filesystem

    path = output or str(Path(tempfile.mkdtemp(prefix="neighbours-")) / "neighbours.html")
    path = filesystem.normalize(path)
    filesystem.write_atomically(path, page)
    print_line(path)
    if not filesystem.is_remote(path):
        webbrowser.open(Path(path).absolute().as_uri())


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command(_command, args)
