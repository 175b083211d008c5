"""WebP, decoded by Pillow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_SIGNATURE = re.compile(rb"RIFF....WEBP", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WebP:
    """The `ImageFormat` of WebP."""

    name: ClassVar[str] = "webp"
    title: ClassVar[str] = "WebP"
    extensions: ClassVar[tuple[str, ...]] = (".webp",)

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a WebP."""
        return _SIGNATURE.match(start) is not None

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the canvas size, RFC 9649 sections 2.5 to 2.7 and RFC 6386 section 9.1."""
        riff_bytes, kind = unpack(self.name, "<4xI4x4s", data, 0)
        if kind == b"VP8 ":
            width, height = unpack(self.name, "<HH", data, 26)
            size = ImageSize(height & 0x3FFF, width & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = unpack(self.name, "<I", data, 21)
            size = ImageSize((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
        elif kind == b"VP8X":
            width_low, width_high, height_low, height_high = unpack(self.name, "<HBHB", data, 24)
            size = ImageSize((height_high << 16 | height_low) + 1, (width_high << 16 | width_low) + 1)
        else:
            raise corrupt(self.name, f"the first chunk is {kind!r}; expected VP8, VP8L or VP8X")
        if riff_bytes + 8 > len(data):
            raise truncated(self.name)
        return size

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the first frame."""
        from pipeline.images import pillow
        from pipeline.images.pillow_files import WebPFile

        return pillow.decode(self.name, WebPFile, data, request)
