"""Text files in the encodings that tools write: UTF-8, with or without a mark at its start, and UTF-16 with one."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from typing import TextIO

from pipeline.storage import filesystem

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@contextlib.contextmanager
def open_text(path: str, *, newline: str | None = None) -> Iterator[TextIO]:
    r"""Opens a text file for reading; bytes outside UTF-8 become lone surrogates, as in file names.

    Args:
      path: of the file.
      newline: as of `open`; by default, lines end with any of `\n`, `\r\n` and `\r`, and with no other character.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(path) as file:
        start = file.read(4)
        file.seek(0)
        encoding = next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8")
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        with io.TextIOWrapper(file, encoding, errors, newline=newline) as text:
            yield text
