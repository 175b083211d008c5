"""Image files that a list or a row of a table names."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Sequence

from pipeline.core.failures import Failure
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.image_files import ImageFiles
from pipeline.inputs.tasks import find_kind
from pipeline.storage import filesystem

_WEB = re.compile(r"https?://", re.IGNORECASE)
WEB_ADVICE = (
    "a web address, which is not fetched; download the images first, for example with img2dataset, and name their files"
)


def is_web_address(text: str) -> bool:
    """Returns whether a text begins like the address of a web page."""
    return _WEB.match(text) is not None


def to_path(text: str) -> str:
    """Returns the path of a `file:` address (RFC 8089), percent-decoded; other texts are returned as they are.

    Raises:
      ValueError: the address names another computer.
    """
    if not text.lower().startswith("file:/"):
        return text
    host, path = re.fullmatch(r"file:(?://([^/]*))?(/.*)", text, re.IGNORECASE | re.DOTALL).groups()  # type: ignore[union-attr]
    if host and host.lower() != "localhost":
        raise ValueError(f"the address {text} names the computer {host}; expected file:///PATH")
    return urllib.parse.unquote(path, errors="surrogateescape")


def read_referenced(paths: Sequence[str], table: InputFile, settings: ReadSettings) -> Iterator[bytes | Failure]:
    """Yields the contents of the files with some paths, or failures; several remote files are read at a time.

    Args:
      paths: paths relative to the directory of `table`, absolute paths, and URIs.
      table: the file that names them.
      settings: of the reader.
    """
    files = tuple(_to_file(path, table) for path in paths if not is_web_address(path))
    images = find_kind(ImageFiles.name)
    found = images.read(TaskPart(ReadTask(ImageFiles.name, files), 0, len(files)), lambda _: True, settings)
    for path in paths:
        if is_web_address(path):
            yield Failure(b"", "", "read", "read_error", f"{path} is {WEB_ADVICE}")
            continue
        item = next(found)
        if isinstance(item, Failure):
            yield Failure(b"", "", item.stage, item.reason, f"{path}: {item.message}")
        else:
            yield item.image


def _to_file(path: str, table: InputFile) -> InputFile:
    with contextlib.suppress(ValueError):  # reading the path as it is fails, and says so
        path = to_path(path)
    if not filesystem.is_remote(path):
        if filesystem.is_remote(table.path):
            path = posixpath.join(posixpath.dirname(table.path), path)
        else:
            path = os.path.join(os.path.dirname(table.path), path)
    return InputFile(path, path, ImageFiles.name, 0, 0.0)
