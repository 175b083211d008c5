"""Images that a row of a table names: files, and web addresses."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Sequence

from pipeline.core.failures import Failure
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.image_files import ImageFiles, fetch_all
from pipeline.inputs.tasks import find_kind
from pipeline.storage import filesystem
from pipeline.storage.web_addresses import is_web_address
from pipeline.storage.web_client import FetchFailure


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
    """Yields the contents of some files and web addresses, or failures; many remote ones are read at a time.

    Args:
      paths: paths relative to the directory of `table`, absolute paths, URIs, and `http(s)://` addresses.
      table: the file that names them.
      settings: of the reader.
    """
    files = tuple(_to_file(path, table) for path in paths if not is_web_address(path))
    images = find_kind(ImageFiles.name)
    found = images.read(TaskPart(ReadTask(ImageFiles.name, files), 0, len(files)), lambda _: True, settings)
    fetched = fetch_all(filter(is_web_address, paths), settings) if len(files) < len(paths) else iter(())
    for path in paths:
        if is_web_address(path):
            answer = next(fetched)
            if isinstance(answer, FetchFailure):
                yield Failure(b"", "", "read", answer.reason, f"{path}: {answer.message}")
            else:
                yield answer
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
