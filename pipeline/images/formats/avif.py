"""AVIF, decoded by Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.images.formats.base import DecodeRequest, ImageSize
from pipeline.images.formats.isobmff import brands, read_primary

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels


@dataclass(frozen=True, slots=True)
class Avif:
    """The `ImageFormat` of AVIF."""

    name: ClassVar[str] = "avif"
    title: ClassVar[str] = "AVIF"
    extensions: ClassVar[tuple[str, ...]] = (".avif", ".avifs")

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins an AVIF."""
        return not brands(start).isdisjoint((b"avif", b"avis"))

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size of the primary image, before turning; AVIF's decoder does not crop."""
        return read_primary(data, self.name).coded

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the primary image, or of an animation's first frame."""
        from pipeline.images import pillow
        from pipeline.images.orientation import turn
        from pipeline.images.pillow_files import AvifFile

        orientation = read_primary(data, self.name).orientation if request.exif_orientation else 1
        image = pillow.open_image(self.name, AvifFile, data, request)
        image.load()
        # The turning of the file replaces that of its EXIF block, which only repeats it (ISO/IEC 23000-22, MIAF).
        return turn(pillow.to_rgb(image), orientation)
