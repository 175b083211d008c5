"""HEIF with HEVC (HEIC), decoded by libheif, with the optional package pillow-heif."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.core.errors import ImageError
from pipeline.images.formats.base import DecodeRequest, ImageSize
from pipeline.images.formats.isobmff import brands, read_primary

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Heif:
    """The `ImageFormat` of HEIF."""

    name: ClassVar[str] = "heif"
    title: ClassVar[str] = "HEIC"
    extensions: ClassVar[tuple[str, ...]] = (".heic", ".heif", ".hif")

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a HEIF."""
        return not brands(start).isdisjoint(_BRANDS)

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size of the primary image, before turning and after cropping."""
        return read_primary(data, self.name).size

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the primary image.

        Raises:
          ImageError: the image is damaged, or pillow-heif is not installed.
        """
        try:
            import pillow_heif
        except ImportError:
            raise ImageError(
                "unsupported_format",
                "a HEIC image: pip install 'embedding-pipeline[heif]', or convert it to PNG or JPEG",
            ) from None
        from pipeline.images import pillow
        from pipeline.images.orientation import turn_back

        primary = read_primary(data, self.name)
        # The encoder pads the image to whole blocks, which do not count.
        request.check_size(primary.coded.height - _BLOCK, primary.coded.width - _BLOCK)
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        request.check_size(file.size[1], file.size[0])
        pixels = pillow.to_rgb(file.to_pillow())
        # libheif turns the image; its EXIF block, which only repeats the turning, does not count (MIAF).
        return pixels if request.exif_orientation else turn_back(pixels, primary.orientation)
