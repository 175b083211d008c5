"""TIFF and BigTIFF, decoded by Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize
from pipeline.images.orientation import turn_back

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_SIGNATURES = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
# Bytes of one value of each field type (TIFF 6.0 section 2; 13 and 16 to 18 from later supplements).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TEXT_TYPES = frozenset({1, 2, 6, 7})
_MAX_NUMBERS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tiff:
    """The `ImageFormat` of TIFF and BigTIFF."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF"
    extensions: ClassVar[tuple[str, ...]] = (".tif", ".tiff")

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a TIFF."""
        return start.startswith(_SIGNATURES)

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size of the first page. Also checks that its tags refer to no more bytes than the data has.

        Layouts from TIFF 6.0 section 2 and, for 64-bit offsets, the BigTIFF proposal.
        """
        order = "<" if data[:2] == b"II" else ">"
        big = data[2:4] in (b"+\0", b"\0+")
        (directory,) = unpack(self.name, order + ("Q" if big else "I"), data, 8 if big else 4)
        (entries,) = unpack(self.name, order + ("Q" if big else "H"), data, directory)
        entry, entry_bytes, inline_bytes = (order + "HHQ", 20, 8) if big else (order + "HHI", 12, 4)
        position = directory + (8 if big else 2)
        outside_bytes, size = 0, {_WIDTH: 0, _HEIGHT: 0}
        for _ in range(entries):
            tag, kind, count = unpack(self.name, entry, data, position)
            value_bytes = count * _TYPE_BYTES.get(kind, 0)
            if value_bytes > inline_bytes:
                outside_bytes += value_bytes
                if kind not in _TEXT_TYPES and value_bytes > _MAX_NUMBERS_BYTES:
                    raise corrupt(self.name, f"tag {tag} has {count} values")
            elif tag in size and count == 1 and kind in (3, 4, 16):
                layout = order + {3: "H", 4: "I", 16: "Q"}[kind]
                (size[tag],) = unpack(self.name, layout, data, position + entry_bytes - inline_bytes)
            position += entry_bytes
        if outside_bytes > len(data):
            raise truncated(self.name)
        return ImageSize(size[_HEIGHT], size[_WIDTH])

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the first page."""
        from pipeline.images import pillow
        from pipeline.images.pillow_files import TiffFile

        image = pillow.open_image(self.name, TiffFile, data, request)
        # Loading turns the page upright and removes the orientation.
        orientation = pillow.orientation_of(image)
        image.load()
        tags = image.tag_v2
        if image.mode in pillow.GREY_OF_16_BITS and tags.get(_BITS, (16,)) != (16,):
            raise pillow.unusual_mode(image)
        pixels = pillow.to_rgb(image)
        if image.mode in pillow.GREY_OF_16_BITS and tags.get(_PHOTOMETRIC) == 0:  # white is zero
            pixels = ~pixels
        return pixels if request.exif_orientation else turn_back(pixels, orientation)
