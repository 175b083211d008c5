"""PNG, decoded by Pillow."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import corrupt, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels


@dataclass(frozen=True, slots=True)
class Png:
    """The `ImageFormat` of PNG."""

    name: ClassVar[str] = "png"
    title: ClassVar[str] = "PNG"
    extensions: ClassVar[tuple[str, ...]] = (".png",)

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a PNG."""
        return start.startswith(b"\x89PNG\r\n\x1a\n")

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size in the first chunk."""
        kind, width, height = unpack(self.name, ">4sII", data, 12)
        if kind != b"IHDR":
            raise corrupt(self.name, f"the first chunk is {kind!r}; expected b'IHDR'")
        return ImageSize(height, width)

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels; of an animation, the default image."""
        from pipeline.images import pillow
        from pipeline.images.pillow_files import PngFile

        return pillow.decode(self.name, PngFile, pixel_chunks(data), request)


def pixel_chunks(data: bytes) -> bytes:
    """Returns a PNG reduced to the chunks that decoding needs, after a check of all checksums.

    Pillow neither verifies the checksums of pixel data nor notices a missing end. It also unpacks compressed
    texts and profiles, which are not needed here and may be huge in a malicious file.

    Raises:
      ImageError: a checksum is wrong, or the data ends early.
    """
    kept = [data[:8]]
    position, kind = 8, b""
    while kind != b"IEND":
        content_bytes, kind = unpack("png", ">I4s", data, position)
        end = position + 8 + content_bytes
        (checksum,) = unpack("png", ">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != checksum:
            raise corrupt("png", f"the checksum of chunk {kind!r} at {position} is wrong")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf"):
            kept.append(data[position : end + 4])
        position = end + 4
    return b"".join(kept)
