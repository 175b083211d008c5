"""List files: text with one image path or address per line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pipeline.core.errors import InputError
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.image_files import ImageFiles
from pipeline.inputs.referenced import to_path
from pipeline.inputs.text import open_text
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat
from pipeline.storage.web_addresses import is_web_address

_QUOTED = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)


class ListFiles(InputKind):
    """Text files of image paths; each line is the key of its image. Paths are relative to the current directory.

    A line that names no file may be a comment, which begins with `#`, a path in quotes, or a `file:` address. An
    `http(s)://` address has neither size nor modification time: once embedded, it is done.
    """

    name = "list"
    file_names = r"\.(?:txt|lst|list)$"
    in_directories = False
    is_list = True

    def listed(self, path: str) -> Iterator[InputFile]:
        """See `InputKind`: yields the images that the lines name; skips blank lines and comments."""
        is_first = True
        for line in _lines(path):
            text = line.strip()
            if not text:
                continue
            # A missing file stays in the plan: the attempt to read it becomes a failure record.
            found = _find(text)
            if found is None:
                continue
            if is_first:
                _refuse_table(path, text)
            is_first = False
            yield InputFile(found.path, line, ImageFiles.name, found.size_bytes, found.mtime_s)


def _find(text: str) -> FileStat | None:
    """Returns the file that a line names; with size 0 if it is missing, and None if the line is a comment."""
    for candidate in _candidates(text):
        target = filesystem.absolute(candidate)
        if filesystem.is_remote(target):
            return FileStat(target, 0, 0.0)
        if _exists(target):
            return filesystem.stat_file(target) or FileStat(target, 0, 0.0)
    return None if text.startswith("#") else FileStat(filesystem.absolute(text), 0, 0.0)


def _candidates(text: str) -> Iterator[str]:
    """Yields the paths that a line may stand for, the most literal one first."""
    yield text
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        yield quoted[1].replace('""', '"')
    if text.lower().startswith("file:/"):
        try:
            yield to_path(text)
        except ValueError as error:
            raise InputError(f"in a list file, {error}") from None


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # the path contains NUL
        return False


def _refuse_table(path: str, first: str) -> None:
    """Refuses a table of paths, by its first line that is no comment.

    Raises:
      InputError: the line has several columns.
    """
    if is_web_address(first):  # may have commas and semicolons, but no spaces
        is_path = not re.search(r"\s", first)
    else:
        is_path = first.lower().endswith(EXTENSIONS) or _QUOTED.fullmatch(first) is not None
    if re.search(r"[,;\t]", first) and not is_path and not any(map(_exists, _candidates(first))):
        shown = first if len(first) <= 60 else f"{first[:60]}..."
        raise InputError(
            f"list file {path} seems to be a table: its first line is {shown}; read it with --input_format=csv"
        )


def _lines(path: str) -> Iterator[str]:
    """Yields the lines of a text file, without their ends; a list of millions of lines is not held in memory."""
    try:
        with open_text(path) as lines:
            for line in lines:
                yield line.removesuffix("\n")
    except OSError as error:
        raise InputError(f"list file {path} cannot be read: {error}") from error
