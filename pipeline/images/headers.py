"""Reads format and size of encoded images from their headers, without decoding pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.errors import ImageError
from pipeline.images.formats.base import ImageFormat
from pipeline.images.formats.registry import FORMATS
from pipeline.images.mistaken import describe

_SIGNATURE_BYTES = 4096
_REFUSED: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("Canon CR3", re.compile(rb"....ftypcrx ", re.DOTALL)),
    ("Fujifilm RAF", re.compile(rb"FUJIFILMCCD-RAW")),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XL", re.compile(rb"\0\0\0\x0cJXL |\xff\x0a")),
    ("Photoshop", re.compile(rb"8BPS\0[\x01\x02]")),
    ("ICO or CUR", re.compile(rb"\0\0[\x01\x02]\0[^\0]\0")),
    (
        "SVG",
        re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:svg|!DOCTYPE svg|\?xml.{0,4000}?<svg|!--.{0,4000}?<svg)\b", re.DOTALL),
    ),
    ("PNM", re.compile(rb"P[1-7F]\s")),
    ("PostScript", re.compile(rb"%!PS-Adobe")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("DDS", re.compile(rb"DDS ")),
    ("QOI", re.compile(rb"qoif")),
    ("ICNS", re.compile(rb"icns")),
    ("DICOM", re.compile(rb".{128}DICM", re.DOTALL)),
)
"""Formats that are recognised only to name them in an error message. Registered formats have precedence."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format and size of an encoded image.

    Attributes:
      format: name of the format, such as `jpeg`.
      height: rows of pixels, before any EXIF orientation.
      width: columns of pixels, before any EXIF orientation.
    """

    format: str
    height: int
    width: int


def read_header(data: bytes, formats: Sequence[ImageFormat] = FORMATS) -> ImageHeader:
    """Returns the format and size of an encoded image; decodes no pixels.

    Args:
      data: the encoded image.
      formats: the formats to choose from, in the order in which they are tried.

    Raises:
      ImageError: with reason `empty`, `not_an_image`, `unsupported_format` or `truncated`.
    """
    return header_of(data, identify(data, formats))


def header_of(data: bytes, image_format: ImageFormat) -> ImageHeader:
    """Returns the header of an image of a known format.

    Raises:
      ImageError: with reason `not_an_image`, `unsupported_format` or `truncated`.
    """
    size = image_format.read_size(data)
    if size.height < 1 or size.width < 1:
        raise ImageError(
            "not_an_image", f"the {image_format.name} header gives a size of {size.height}x{size.width} pixels"
        )
    return ImageHeader(image_format.name, size.height, size.width)


def identify(data: bytes, formats: Sequence[ImageFormat] = FORMATS) -> ImageFormat:
    """Returns the format of an encoded image, by its first bytes.

    Args:
      data: the encoded image.
      formats: the formats to choose from, in the order in which they are tried.

    Raises:
      ImageError: with reason `empty`, `not_an_image` or `unsupported_format`.
    """
    start = data[:_SIGNATURE_BYTES]
    if start:
        for image_format in formats:
            if image_format.matches(start):
                return image_format
    *titles, last = [image_format.title for image_format in formats]
    expected = f"expected {', '.join(titles)} or {last}" if titles else f"expected {last}"
    if not start:
        raise ImageError("empty", f"0 bytes; {expected}")
    for title, signature in _REFUSED:
        if signature.match(start):
            raise ImageError("unsupported_format", f"a {title} image; {expected}: convert it first")
    mistaken = describe(start, formats)
    if mistaken is not None:
        raise ImageError("not_an_image", f"not an image, but {mistaken}")
    raise ImageError("not_an_image", f"no known image begins with {start[:8]!r}; {expected}")
