"""What encoded images say of themselves: format and size by the header, wholeness by the structure.

No pixels are decoded here, and no more is believed or read than the bytes that have arrived.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.errors import ImageError

ImageFormat = Literal["jpeg", "png", "gif", "bmp", "webp", "tiff"]

_SIGNATURES: tuple[tuple[re.Pattern[bytes], ImageFormat], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "tiff"),
    # "BM" alone begins many a text: ask for one of the known lengths of the second header too.
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "bmp"),
)
_REFUSED_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"8BPS\0[\x01\x02]"), "Photoshop"),
    (re.compile(rb"\0\0[\x01\x02]\0[^\0]\0"), "ICO or CUR"),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:svg|!DOCTYPE svg|\?xml.{0,4000}?<svg|!--.{0,4000}?<svg)\b", re.DOTALL),
        "SVG",
    ),
    (re.compile(rb"P[1-7F]\s"), "PNM"),
    (re.compile(rb"%!PS-Adobe"), "PostScript"),
    (re.compile(rb"\x76\x2f\x31\x01"), "OpenEXR"),
    (re.compile(rb"DDS "), "DDS"),
    (re.compile(rb"qoif"), "QOI"),
    (re.compile(rb"icns"), "ICNS"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM"),
)
_SIGNATURE_BYTES = 4096
_EXPECTED = "expected JPEG, PNG, GIF, BMP, WebP or TIFF"

_JPEG_PROCESSES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# Bytes of one value of each TIFF field type (TIFF 6.0 section 2; 13 and 16 to 18 from later supplements).
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
_TIFF_TEXT_TYPES = frozenset({1, 2, 6, 7})
_MAX_TIFF_NUMBERS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes:
      format: one of `jpeg`, `png`, `gif`, `bmp`, `webp`, `tiff`.
      height: rows of pixels, before any EXIF orientation.
      width: columns of pixels, before any EXIF orientation.
    """

    format: ImageFormat
    height: int
    width: int


def read_header(data: bytes) -> ImageHeader:
    """Returns the format and size of an encoded image; decodes no pixels.

    Args:
      data: the encoded image.

    Raises:
      ImageError: with reason `empty`, `not_an_image`, `unsupported_format` or `truncated`.
    """
    image_format = _identify(data)
    height, width = _SIZE_READERS[image_format](data)
    if height < 1 or width < 1:
        raise ImageError("not_an_image", f"the {image_format} header gives a size of {height}x{width} pixels")
    return ImageHeader(image_format, height, width)


def _identify(data: bytes) -> ImageFormat:
    """Returns the format that the first bytes of `data` announce."""
    if not data:
        raise ImageError("empty", f"0 bytes; {_EXPECTED}")
    start = data[:_SIGNATURE_BYTES]
    for signature, image_format in _SIGNATURES:
        if signature.match(start):
            return image_format
    for signature, name in _REFUSED_SIGNATURES:
        if signature.match(start):
            raise ImageError("unsupported_format", f"a {name} image; {_EXPECTED}: convert it first")
    raise ImageError("not_an_image", f"no known image begins with {start[:8]!r}; {_EXPECTED}")


def truncated(image_format: ImageFormat) -> ImageError:
    """Returns the error for data that ends early."""
    return ImageError("truncated", f"the {image_format} data ends before the image does: fetch the file again")


def _unpack(image_format: ImageFormat, layout: str, data: bytes, offset: int) -> tuple[Any, ...]:
    """Like `struct.unpack_from`, but data that ends early is an ImageError."""
    try:
        return struct.unpack_from(layout, data, offset)
    except (struct.error, OverflowError) as error:  # the latter from offsets of 64 bits
        raise truncated(image_format) from error


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG, ITU-T T.81 section B.2.2."""

    process: int
    height: int
    width: int
    components: int


def read_jpeg_frame(data: bytes) -> JpegFrame:
    """Returns the first frame header; skips what libjpeg skips on its way there."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        (marker,) = _unpack("jpeg", ">B", data, position + 1)
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD7:  # no segment follows
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision, height, width, components = _unpack("jpeg", ">BHHB", data, position + 4)
            if marker not in _JPEG_PROCESSES or precision != 8 or components not in (1, 3, 4):
                raise ImageError(
                    "unsupported_format",
                    f"a JPEG of process SOF{marker - 0xC0}, {precision} bits and {components} components; "
                    "expected a lossy one of 8 bits and 1, 3 or 4 components: convert it first",
                )
            return JpegFrame(marker, height, width, components)
        elif marker in (0xD8, 0xD9, 0xDA):
            raise ImageError("not_an_image", "corrupt jpeg: no frame header comes before the image data")
        else:
            position += 2 + _unpack("jpeg", ">H", data, position + 2)[0]
    raise truncated("jpeg")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    frame = read_jpeg_frame(data)
    return frame.height, frame.width


def _png_size(data: bytes) -> tuple[int, int]:
    kind, width, height = _unpack("png", ">4sII", data, 12)
    if kind != b"IHDR":
        raise ImageError("not_an_image", f"corrupt png: the first chunk is {kind!r}; expected b'IHDR'")
    return height, width


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = _unpack("gif", "<HH", data, 6)
    return height, width


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header_bytes,) = _unpack("bmp", "<I", data, 14)
    width, height = _unpack("bmp", "<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(height), width  # rows from the top have a negative height


def _webp_size(data: bytes) -> tuple[int, int]:
    """Returns the canvas size, RFC 9649 sections 2.5 to 2.7 and RFC 6386 section 9.1."""
    riff_bytes, kind = _unpack("webp", "<4xI4x4s", data, 0)
    if kind == b"VP8 ":
        width, height = _unpack("webp", "<HH", data, 26)
        size = height & 0x3FFF, width & 0x3FFF
    elif kind == b"VP8L":
        (bits,) = _unpack("webp", "<I", data, 21)
        size = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    elif kind == b"VP8X":
        width_low, width_high, height_low, height_high = _unpack("webp", "<HBHB", data, 24)
        size = (height_high << 16 | height_low) + 1, (width_high << 16 | width_low) + 1
    else:
        raise ImageError("not_an_image", f"corrupt webp: the first chunk is {kind!r}; expected VP8, VP8L or VP8X")
    if riff_bytes + 8 > len(data):
        raise truncated("webp")
    return size


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Returns the size of the first page, and checks that reading its tags costs no more than the data.

    Layouts from TIFF 6.0 section 2 and, for 64-bit offsets, the BigTIFF proposal.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (directory,) = _unpack("tiff", order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = _unpack("tiff", order + ("Q" if big else "H"), data, directory)
    entry, entry_bytes, inline_bytes = (order + "HHQ", 20, 8) if big else (order + "HHI", 12, 4)
    position = directory + (8 if big else 2)
    outside_bytes, size = 0, {256: 0, 257: 0}
    for _ in range(entries):
        tag, kind, count = _unpack("tiff", entry, data, position)
        value_bytes = count * _TIFF_TYPE_BYTES.get(kind, 0)
        if value_bytes > inline_bytes:
            outside_bytes += value_bytes
            if kind not in _TIFF_TEXT_TYPES and value_bytes > _MAX_TIFF_NUMBERS_BYTES:
                raise ImageError("not_an_image", f"corrupt tiff: tag {tag} has {count} values")
        elif tag in size and count == 1 and kind in (3, 4, 16):
            layout = order + {3: "H", 4: "I", 16: "Q"}[kind]
            (size[tag],) = _unpack("tiff", layout, data, position + entry_bytes - inline_bytes)
        position += entry_bytes
    if outside_bytes > len(data):
        raise truncated("tiff")
    return size[257], size[256]


_SIZE_READERS: dict[ImageFormat, Callable[[bytes], tuple[int, int]]] = {
    "jpeg": _jpeg_size,
    "png": _png_size,
    "gif": _gif_size,
    "bmp": _bmp_size,
    "webp": _webp_size,
    "tiff": _tiff_size,
}


def png_pixel_chunks(data: bytes) -> bytes:
    """Returns a PNG reduced to the chunks that matter here, each one's checksum verified.

    Pillow checks no checksum of pixel data, does not notice a missing end, and unpacks compressed texts
    and profiles, which nobody needs here and a hostile file may make large.
    """
    kept = [data[:8]]
    position, kind = 8, b""
    while kind != b"IEND":
        content_bytes, kind = _unpack("png", ">I4s", data, position)
        end = position + 8 + content_bytes
        (checksum,) = _unpack("png", ">I", data, end)
        if zlib.crc32(memoryview(data)[position + 4 : end]) != checksum:
            raise ImageError("not_an_image", f"corrupt png: the checksum of chunk {kind!r} at {position} is wrong")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"eXIf"):
            kept.append(data[position : end + 4])
        position = end + 4
    return b"".join(kept)


def gif_first_frame(data: bytes) -> bytes:
    """Returns a GIF without the extensions before its first frame, GIF89a sections 18 to 26.

    Pillow takes a time that is the square of the number of comments, and transparency is of no use here.
    """
    (flags,) = _unpack("gif", "B", data, 10)
    palette_bytes = 3 << (flags & 7) + 1 if flags & 0x80 else 0
    start = position = 13 + palette_bytes
    while True:
        (kind,) = _unpack("gif", "B", data, position)
        if kind == 0x2C:
            return data[:start] + data[position:]
        if kind == 0x3B:
            raise ImageError("not_an_image", "corrupt gif: it ends without a frame")
        position += 1
        if kind == 0x21:
            position += 1
            while block_bytes := _unpack("gif", "B", data, position)[0]:
                position += 1 + block_bytes
            position += 1
