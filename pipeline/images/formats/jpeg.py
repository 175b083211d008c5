"""JPEG, decoded by libjpeg-turbo.

simplejpeg releases the GIL and returns the pixels of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`.
Pillow decodes CMYK, and damaged files that simplejpeg refuses although libjpeg only warns about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.core.errors import ImageError
from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import DecodeRequest, ImageSize
from pipeline.images.orientation import swaps_sides, turn

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels
    from pipeline.images.pillow_files import JpegFile

_SEQUENTIAL = frozenset({0xC0, 0xC1})
_PROCESSES = _SEQUENTIAL | {0xC2, 0xC9, 0xCA}
# Every scan of a progressive JPEG visits all blocks, even if the scan has only a few bytes. Encoders write about
# ten scans; libjpeg-turbo's fuzzers stop at 500.
_MAX_SCANS = 500
_MAX_EXIF_SEGMENTS = 100


@dataclass(frozen=True, slots=True)
class Jpeg:
    """The `ImageFormat` of JPEG."""

    name: ClassVar[str] = "jpeg"
    title: ClassVar[str] = "JPEG"
    extensions: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".jpe", ".jfif")

    def matches(self, start: bytes) -> bool:
        """Returns whether `start` begins a JPEG."""
        return start.startswith(b"\xff\xd8\xff")

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size in the frame header."""
        return read_frame(data).size

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels, at the smallest of libjpeg's scales (eighths) that is not below `min_size`.

        CMYK and damaged files have the full size.
        """
        import simplejpeg

        frame = read_frame(data)
        if frame.process not in _SEQUENTIAL and data.count(b"\xff\xda") > _MAX_SCANS:
            raise ImageError("too_large", f"a JPEG of more than {_MAX_SCANS} scans: save it again with fewer")
        if frame.components == 4:
            return _decode_with_pillow(data, request)
        orientation = _orientation(data, request) if request.exif_orientation else 1
        height, width = (request.min_size.height, request.min_size.width) if request.min_size else (0, 0)
        if swaps_sides(orientation):
            height, width = width, height
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
        except ValueError as error:
            if "Premature end of JPEG file" in str(error):
                raise truncated(self.name) from error
            # Strict mode detects data that ends early, but it also fails on damage that libjpeg only warns
            # about. TensorFlow continues after such a warning; so does Pillow, with the same pixels.
            return _decode_with_pillow(data, request)
        return turn(pixels, orientation)


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG, ITU-T T.81 section B.2.2.

    Attributes:
      process: second byte of the marker, 0xC0 to 0xCF.
      size: size of the image.
      components: number of colour components.
    """

    process: int
    size: ImageSize
    components: int


def read_frame(data: bytes) -> JpegFrame:
    """Returns the first frame header; before it, skips the same bytes as libjpeg.

    Raises:
      ImageError: there is no frame header, or it declares an unsupported kind of JPEG.
    """
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        (marker,) = unpack("jpeg", ">B", data, position + 1)
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD7:  # no segment follows
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision, height, width, components = unpack("jpeg", ">BHHB", data, position + 4)
            if marker not in _PROCESSES or precision != 8 or components not in (1, 3, 4):
                raise ImageError(
                    "unsupported_format",
                    f"a JPEG of process SOF{marker - 0xC0}, {precision} bits and {components} components; "
                    "expected a lossy one of 8 bits and 1, 3 or 4 components: convert it first",
                )
            return JpegFrame(marker, ImageSize(height, width), components)
        elif marker in (0xD8, 0xD9, 0xDA):
            raise corrupt("jpeg", "no frame header comes before the image data")
        else:
            position += 2 + unpack("jpeg", ">H", data, position + 2)[0]
    raise truncated("jpeg")


def _open(data: bytes, request: DecodeRequest) -> JpegFile:
    from pipeline.images import pillow
    from pipeline.images.pillow_files import JpegFile

    # Pillow's time to join the EXIF segments grows with the square of their number.
    if data.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS:
        raise corrupt("jpeg", f"more than {_MAX_EXIF_SEGMENTS} EXIF segments")
    return pillow.open_image("jpeg", JpegFile, data, request)


def _orientation(data: bytes, request: DecodeRequest) -> int:
    from pipeline.images import pillow

    try:
        return pillow.orientation_of(_open(data, request))
    except Exception:  # Pillow refuses headers that libjpeg accepts.
        return 1


def _decode_with_pillow(data: bytes, request: DecodeRequest) -> Pixels:
    from pipeline.images import pillow

    image = _open(data, request)
    # Pillow inverts the CMYK of every JPEG, but only Adobe's files hold inverted ink.
    return pillow.pixels_of(image, request, holds_ink="adobe" in image.info)
