"""List files: text with one image path or URI per line."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from pipeline.core.errors import InputError
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.image_files import ImageFiles
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat

EXTENSIONS = (".txt", ".lst", ".list")


class ListFiles(InputKind):
    """Text files of image paths; each line is the key of its image. Paths are relative to the current directory."""

    name = "list"
    in_directories = False

    def recognizes(self, name: str) -> bool:
        """See `InputKind`."""
        return name.endswith(EXTENSIONS)

    def find(self, stat: FileStat, name: str) -> Iterator[InputFile]:
        """See `InputKind`: yields the images that the lines name; skips blank lines."""
        del name
        try:
            text = filesystem.read_bytes(stat.path).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise InputError(f"list file {stat.path} cannot be read: {error}") from error
        for line in re.split(r"\r\n|\r|\n", text):  # not `splitlines`: a file name may contain other Unicode line ends
            if not line.strip():
                continue
            target = filesystem.absolute(line.strip())
            # A missing file stays in the plan: the attempt to read it becomes a failure record.
            found = (None if filesystem.is_remote(target) else filesystem.stat_file(target)) or FileStat(target, 0, 0.0)
            yield InputFile(target, line, ImageFiles.name, found.size_bytes, found.mtime_s)
