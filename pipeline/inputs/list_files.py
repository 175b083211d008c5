"""List files: text with one image path or URI per line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from pipeline.core.errors import InputError
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.image_files import ImageFiles
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat


class ListFiles(InputKind):
    """Text files of image paths; each line is the key of its image. Paths are relative to the current directory."""

    name = "list"
    file_names = r"\.(?:txt|lst|list)$"
    in_directories = False
    is_list = True

    def listed(self, path: str) -> Iterator[InputFile]:
        """See `InputKind`: yields the images that the lines name; skips blank lines."""
        for line in _lines(path):
            if not line.strip():
                continue
            target = filesystem.absolute(line.strip())
            # A missing file stays in the plan: the attempt to read it becomes a failure record.
            found = (None if filesystem.is_remote(target) else filesystem.stat_file(target)) or FileStat(target, 0, 0.0)
            yield InputFile(target, line, ImageFiles.name, found.size_bytes, found.mtime_s)


def _lines(path: str) -> Iterator[str]:
    """Yields the lines of a text file, without their ends; a list of millions of lines is not held in memory."""
    try:
        with filesystem.open_read(path) as file:
            begin = file.read(len(codecs.BOM_UTF8))
            if begin != codecs.BOM_UTF8:
                file.seek(0)
            # Universal line ends, and no others: a file name may contain other Unicode line ends.
            with io.TextIOWrapper(file, "utf-8", "surrogateescape", newline=None) as lines:
                for line in lines:
                    yield line.removesuffix("\n")
    except OSError as error:
        raise InputError(f"list file {path} cannot be read: {error}") from error
