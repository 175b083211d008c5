"""GIF, decoded by Pillow."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import corrupt, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_MAX_SIDE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Gif:
    """The `ImageFormat` of GIF."""

    name: ClassVar[str] = "gif"
    title: ClassVar[str] = "GIF"
    extensions: ClassVar[tuple[str, ...]] = (".gif",)

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a GIF."""
        return start.startswith((b"GIF87a", b"GIF89a"))

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size of the canvas; the first frame may reach beyond it."""
        width, height = unpack(self.name, "<HH", data, 6)
        return ImageSize(height, width)

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the first frame on its canvas."""
        from PIL.GifImagePlugin import GifImageFile

        from pipeline.images import pillow

        return pillow.decode(self.name, GifImageFile, first_frame(data), request)


def first_frame(data: bytes) -> bytes:
    """Returns a GIF without the extensions before its first frame, on a canvas that holds the frame.

    Layout from GIF89a sections 18 to 26. Pillow's time for comments grows with the square of their number, and
    transparency is not needed here. Pillow would also enlarge a canvas that is too small, but compare its size
    with a global limit.

    Raises:
      ImageError: there is no frame, or the data ends early.
    """
    canvas_width, canvas_height, flags = unpack("gif", "<HHB", data, 6)
    palette_bytes = 3 << (flags & 7) + 1 if flags & 0x80 else 0
    start = position = 13 + palette_bytes
    while True:
        (kind,) = unpack("gif", "B", data, position)
        if kind == 0x2C:
            break
        if kind == 0x3B:
            raise corrupt("gif", "it ends without a frame")
        position += 1
        if kind == 0x21:
            position += 1
            while block_bytes := unpack("gif", "B", data, position)[0]:
                position += 1 + block_bytes
            position += 1
    left, top, width, height = unpack("gif", "<HHHH", data, position + 1)
    canvas = struct.pack(
        "<HH", min(max(canvas_width, left + width), _MAX_SIDE), min(max(canvas_height, top + height), _MAX_SIDE)
    )
    return b"".join((data[:6], canvas, data[10:start], data[position:]))
