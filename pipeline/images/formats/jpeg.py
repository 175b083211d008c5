"""JPEG, decoded by libjpeg-turbo.

simplejpeg releases the GIL and returns the pixels of `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`.
Pillow decodes damaged files that simplejpeg refuses although libjpeg only warns about them; the damage is reported.
"""

from __future__ import annotations

import re
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
_COEFFICIENTS = 64
# Warnings of libjpeg about headers that do not affect the pixels.
_HARMLESS = re.compile("unknown JFIF revision|Invalid SOS parameters for sequential|Unknown Adobe color transform")
# In a file of one scan, only these markers come after pixels: restart markers and the end.
_STRAY_BYTES = re.compile("extraneous bytes before marker 0x(?!d[0-79])")


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
            return _decode_ink(data, frame, request)
        orientation = _orientation(data, request) if request.exif_orientation else 1
        height, width = (request.min_size.height, request.min_size.width) if request.min_size else (0, 0)
        if swaps_sides(orientation):
            height, width = width, height
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
        except ValueError as error:
            return _decode_after_warning(data, frame, str(error), request)
        _check_scans(data, frame, request)
        return turn(pixels, orientation)


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG, ITU-T T.81 section B.2.2.

    Attributes:
      process: second byte of the marker, 0xC0 to 0xCF.
      size: size of the image.
      components: number of colour components.
      end: offset of the first byte after the frame header.
    """

    process: int
    size: ImageSize
    components: int
    end: int


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
            length, precision, height, width, components = unpack("jpeg", ">HBHHB", data, position + 2)
            if marker not in _PROCESSES or precision != 8 or components not in (1, 3, 4):
                raise ImageError(
                    "unsupported_format",
                    f"a JPEG of process SOF{marker - 0xC0}, {precision} bits and {components} components; "
                    "expected a lossy one of 8 bits and 1, 3 or 4 components: convert it first",
                )
            return JpegFrame(marker, ImageSize(height, width), components, position + 2 + length)
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


def _decode_ink(data: bytes, frame: JpegFrame, request: DecodeRequest) -> Pixels:
    """Returns the pixels of a CMYK or YCCK image."""
    import simplejpeg

    from pipeline.images import pillow

    image = _open(data, request)
    try:
        light = simplejpeg.decode_jpeg(data, "CMYK", strict=True)
    except ValueError as error:
        return _decode_after_warning(data, frame, str(error), request)
    _check_scans(data, frame, request)
    if "adobe" not in image.info:  # Only Adobe's files hold inverted ink.
        light = 255 - light
    return turn(pillow.light_to_rgb(light), pillow.orientation_of(image) if request.exif_orientation else 1)


def _decode_after_warning(data: bytes, frame: JpegFrame, warning: str, request: DecodeRequest) -> Pixels:
    """Returns the pixels of an image that libjpeg warns about, and reports its damage.

    simplejpeg's strict mode fails after any warning; `warning` is libjpeg's last one. TensorFlow continues after a
    warning, unless the file ends early; so does Pillow, with the same pixels.
    """
    if "Premature end of JPEG file" in warning:
        raise truncated("jpeg")
    pixels = _decode_with_pillow(data, request)
    is_one_scan = frame.process in _SEQUENTIAL and data.count(b"\xff\xda", frame.end) == 1
    if not (_HARMLESS.search(warning) or (is_one_scan and _STRAY_BYTES.search(warning))):
        request.report_damage(f"damaged jpeg: {warning}")
    else:
        _check_scans(data, frame, request)
    return pixels


def _check_scans(data: bytes, frame: JpegFrame, request: DecodeRequest) -> None:
    """Reports scans that are missing, about which libjpeg does not warn.

    A scan sends some components, and in a progressive file also only some coefficients (Ss to Se) down to one bit
    (Al): ITU-T T.81 sections B.2.3 and G.1.1.1. All coefficients must arrive down to bit 0.
    """
    is_progressive = frame.process in (0xC2, 0xCA)
    missing: dict[int, bytearray] = {}
    position = frame.end
    while (position := data.find(b"\xff\xda", position)) >= 0:
        head = data[position + 2 : position + 5]
        components = head[2] if len(head) == 3 else 0
        scan = data[position + 5 : position + 8 + 2 * components]
        if not 1 <= components <= 4 or head[:2] != bytes((0, 6 + 2 * components)) or len(scan) < 2 * components + 3:
            position += 2
            continue
        if components == frame.components and not is_progressive:
            return
        first, last, bit = (scan[-3], scan[-2], scan[-1] & 0xF) if is_progressive else (0, _COEFFICIENTS - 1, 0)
        for component in scan[: 2 * components : 2]:
            left = missing.setdefault(component, bytearray(b"\xff" * _COEFFICIENTS))
            left[first : last + 1] = bytes((bit,)) * (min(last, _COEFFICIENTS - 1) + 1 - first)
        position += 2
    if len(missing) < frame.components or any(map(any, missing.values())):
        request.report_damage("damaged jpeg: it ends before its last scan, so details are missing")
