"""Pillow's image files, without its warnings.

Pillow warns about damaged metadata, and about sizes above a global limit. With `python -W error`, such a warning
would turn a decodable image into a failure. Catching warnings is not thread-safe. These classes avoid the warnings and
read the same values as their base classes.
"""

from __future__ import annotations

import contextlib
from typing import IO, Any, cast

from PIL import Image, ImageFile, TiffTags
from PIL.AvifImagePlugin import AvifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile


class _EndOfData(Exception):
    """A read asked for more bytes than the stream has."""


class _WholeReads:
    """A stream that raises `_EndOfData` instead of returning fewer bytes than a read asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek = stream.seek
        self.tell = stream.tell
        self._read = stream.read

    def read(self, size: int) -> bytes:
        if len(data := self._read(size)) < size:
            raise _EndOfData
        return data


class Directory(ImageFileDirectory_v2):
    """The tags of a TIFF or an EXIF block; damaged ones cause no warning."""

    @classmethod
    def of(cls, other: ImageFileDirectory_v2) -> Directory:
        """Returns a directory with the state of another one."""
        directory = cls(prefix=other.prefix)
        vars(directory).update(vars(other))
        return directory

    def become_big(self, following: int) -> None:
        """Makes the directory one of BigTIFF, before it is loaded; `following` is the offset of the first page."""
        self._bigtiff = True
        self.next = following

    def load(self, fp: IO[bytes]) -> None:
        """Reads the tags from a stream; if the data ends early, only the complete ones."""
        with contextlib.suppress(_EndOfData):
            super().load(cast("IO[bytes]", _WholeReads(fp)))

    def _setitem(self, tag: int, value: Any, legacy_api: bool) -> None:
        # If a tag has several values instead of one, Pillow warns and takes the first.
        if isinstance(value, tuple) and len(value) > 1 and TiffTags.lookup(tag, self.group).length == 1:
            value = value[:1]
        super()._setitem(tag, value, legacy_api)


class _Exif(Image.Exif):
    @property
    def _info(self) -> Directory | None:
        return self._directory

    @_info.setter
    def _info(self, directory: ImageFileDirectory_v2 | None) -> None:
        self._directory = None if directory is None else Directory.of(directory)


class _FileWithExif(ImageFile.ImageFile):
    def getexif(self) -> Image.Exif:
        """Returns the EXIF tags."""
        if self._exif is None:
            self._exif = _Exif()
        return super().getexif()


class JpegFile(_FileWithExif, JpegImageFile):
    """A JPEG."""


class PngFile(_FileWithExif, PngImageFile):
    """A PNG."""


class WebPFile(_FileWithExif, WebPImageFile):
    """A WebP."""


class AvifFile(AvifImageFile):
    """An AVIF."""


class TiffFile(_FileWithExif, TiffImageFile):
    """A TIFF."""

    @property
    def tag_v2(self) -> Directory:
        """The tags of the current page."""
        return self._directory

    @tag_v2.setter
    def tag_v2(self, directory: ImageFileDirectory_v2) -> None:
        self._directory = Directory.of(directory)
        assert self.fp is not None
        place = self.fp.tell()
        self.fp.seek(0)
        header = self.fp.read(16)
        self.fp.seek(place)
        if header.startswith(b"MM\0+") and len(header) == 16:  # Pillow takes a big-endian BigTIFF for a TIFF
            self._directory.become_big(int.from_bytes(header[8:], "big"))

    def load_prepare(self) -> None:
        """Allocates the pixels, without Pillow's check of their number against a global limit."""
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        super().load_prepare()
