"""BMP, decoded by Pillow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

# Many texts begin with "BM". The second header has one of a few lengths.
_SIGNATURE = re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bmp:
    """The `ImageFormat` of BMP."""

    name: ClassVar[str] = "bmp"
    title: ClassVar[str] = "BMP"
    extensions: ClassVar[tuple[str, ...]] = (".bmp",)

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a BMP."""
        return _SIGNATURE.match(start) is not None

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size in the second header."""
        (header_bytes,) = unpack(self.name, "<I", data, 14)
        width, height = unpack(self.name, "<HH" if header_bytes == 12 else "<ii", data, 18)
        return ImageSize(abs(height), width)  # rows from the top have a negative height

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels."""
        from PIL.BmpImagePlugin import BmpImageFile

        from pipeline.images import pillow

        return pillow.decode(self.name, BmpImageFile, data, request)
