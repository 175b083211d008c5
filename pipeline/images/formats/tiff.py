"""TIFF and BigTIFF, decoded by Pillow, and by OpenCV or tifffile if Pillow does not know the layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.core.errors import ImageError
from pipeline.images.formats.base import DecodeRequest, ImageSize
from pipeline.images.formats.tiff_pages import SIGNATURES, find_picture, starting_with
from pipeline.images.orientation import turn_back

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_BITS, _PHOTOMETRIC = 258, 262
# What Pillow decodes in all its builds.
_PILLOW_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34676, 34677, 34925, 50000})


@dataclass(frozen=True, slots=True)
class Tiff:
    """The `ImageFormat` of TIFF and BigTIFF."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF"
    extensions: ClassVar[tuple[str, ...]] = (".tif", ".tiff")

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a TIFF."""
        return start.startswith(SIGNATURES)

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size of the first page, or of the page for which the first one is a thumbnail."""
        return find_picture(data).size

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the page of `read_size`."""
        from pipeline.images.formats import tiff_others

        page = find_picture(data)
        if page.is_of_sensor:
            raise ImageError(
                "unsupported_format",
                f"a camera raw file: the {page.size.height}x{page.size.width} pixels of its picture are sensor data; "
                "develop it to JPEG or TIFF first",
            )
        data = starting_with(data, page)
        # Pillow takes uncompressed planes of 16 bits for planes of 8, and misses planes of grey with alpha.
        is_misread = page.has_planes and page.bits == {16} and (page.compression == 1 or page.samples == 2)
        if is_misread or page.compression not in _PILLOW_COMPRESSIONS:
            return tiff_others.decode(data, page, request)
        try:
            return _decode_with_pillow(data, request)
        except (SyntaxError, ValueError, IndexError) as error:  # Pillow does not know the layout
            return tiff_others.decode(data, page, request, error)
        except OSError:
            page.check_end(data)  # libtiff's errors do not say that the data ends early
            raise


def _decode_with_pillow(data: bytes, request: DecodeRequest) -> Pixels:
    from pipeline.images import pillow
    from pipeline.images.pillow_files import TiffFile

    image = pillow.open_image("tiff", TiffFile, data, request)
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
