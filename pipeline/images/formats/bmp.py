"""BMP, decoded by Pillow, except for unusual bit fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_BIT_FIELDS, _ALPHA_BIT_FIELDS = 3, 6
# Pillow's BmpImagePlugin: masks of red, green, blue and alpha.
_PILLOW_MASKS = frozenset(
    {
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
        (0, 0, 0, 0),  # as without fields
    }
)
_PILLOW_MASKS_OF_16_BITS = frozenset({(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)})
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

        fields = read_fields(data)
        if fields is not None and not fields.is_known_to_pillow:
            return fields.decode(data)
        return pillow.decode(self.name, BmpImageFile, data, request)


@dataclass(frozen=True, slots=True)
class BitFields:
    """The layout of a BMP whose header says which bits of a pixel are red, green and blue.

    Attributes:
      size: of the image.
      from_top: whether the first row is the top one.
      compression: as in the header.
      bits: of a pixel, 16 or 32.
      start: offset of the pixels.
      masks: the bits of red, green, blue and alpha.
    """

    size: ImageSize
    from_top: bool
    compression: int
    bits: int
    start: int
    masks: tuple[int, int, int, int]

    @property
    def is_known_to_pillow(self) -> bool:
        """Whether Pillow decodes the layout."""
        if self.compression != _BIT_FIELDS:
            return False
        return self.masks in _PILLOW_MASKS if self.bits == 32 else self.masks[:3] in _PILLOW_MASKS_OF_16_BITS

    def decode(self, data: bytes) -> Pixels:
        """Returns the pixels: fields of up to 8 bits are scaled to 255, longer ones keep their upper 8 bits."""
        import numpy as np

        row_bytes = -(-self.size.width * self.bits // 32) * 4
        if self.start + row_bytes * self.size.height > len(data):
            raise truncated("bmp")
        rows = np.frombuffer(data, np.uint8, row_bytes * self.size.height, self.start).reshape(self.size.height, -1)
        words = rows.view(f"<u{self.bits // 8}")[:, : self.size.width]
        pixels = np.empty((self.size.height, self.size.width, 3), np.uint8)
        for channel, mask in enumerate(self.masks[:3]):
            if not mask:
                raise corrupt("bmp", "a colour has no bits")
            shift = (mask & -mask).bit_length() - 1
            length = (mask >> shift).bit_length()
            values = ((words & mask) >> shift).astype(np.int64)
            if length > 8:
                values = values >> (length - 8)
            elif length < 8:
                values = values * 255 // ((1 << length) - 1)
            pixels[..., channel] = values
        return pixels if self.from_top else pixels[::-1]


def read_fields(data: bytes) -> BitFields | None:
    """Returns the bit fields of a BMP of 16 or 32 bits, or None if it has none.

    Layout: Microsoft's BITMAPINFOHEADER and BITMAPV4HEADER.

    Raises:
      ImageError: the header is damaged.
    """
    start, header_bytes = unpack("bmp", "<II", data, 10)
    if header_bytes < 40 or header_bytes == 64:  # 64: OS/2, whose compressions have other meanings
        return None
    width, height, _, bits, compression = unpack("bmp", "<iiHHI", data, 18)
    if compression not in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) or bits not in (16, 32):
        return None
    has_alpha = header_bytes >= 56 or compression == _ALPHA_BIT_FIELDS
    masks = unpack("bmp", "<IIII" if has_alpha else "<III", data, 54)
    return BitFields(ImageSize(abs(height), width), height < 0, compression, bits, start, (*masks, 0)[:4])
