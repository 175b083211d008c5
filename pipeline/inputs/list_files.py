"""List files: text with one image path or URI a line."""

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
    """Text files that name images; a line is the key of its image. Relative paths begin at the current directory."""

    name = "list"
    in_directories = False

    def recognizes(self, name: str) -> bool:
        """See `InputKind`."""
        return name.endswith(EXTENSIONS)

    def find(self, stat: FileStat, name: str) -> Iterator[InputFile]:
        """See `InputKind`: yields the images that the lines name; blank lines name none."""
        del name
        try:
            text = filesystem.read_bytes(stat.path).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise InputError(f"list file {stat.path} cannot be read: {error}") from error
        for line in re.split(
            r"\r\n|\r|\n", text
        ):  # and nowhere else: a file's name may hold what Unicode calls a line end
            if not line.strip():
                continue
            target = filesystem.absolute(line.strip())
            # A file that is not there stays in the plan: reading it makes the failure that says so.
            found = (None if filesystem.is_remote(target) else filesystem.stat_file(target)) or FileStat(target, 0, 0.0)
            yield InputFile(target, line, ImageFiles.name, found.size_bytes, found.mtime_s)
