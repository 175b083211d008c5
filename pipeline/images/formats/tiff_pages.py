"""The pages of a TIFF: reads their directories, and finds the page that holds the picture.

Layouts from TIFF 6.0 section 2 and, for 64-bit offsets, the BigTIFF proposal; sub-pages from TIFF Technical Note 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.core.errors import ImageError
from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import ImageSize

SIGNATURES = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
SENSOR_PHOTOMETRICS = frozenset({32803, 34892})
"""Photometric interpretations of a camera's sensor data: a colour filter array, and linear raw (DNG 1.6)."""
COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT T.4",
    4: "CCITT T.6",
    5: "LZW",
    6: "old JPEG",
    7: "JPEG",
    8: "Deflate",
    32766: "NeXT",
    32767: "Sony ARW",
    32771: "CCITT RLE",
    32773: "PackBits",
    32809: "ThunderScan",
    32908: "PixarFilm",
    32909: "PixarLog",
    32946: "Deflate",
    34661: "JBIG",
    34676: "SGILog",
    34677: "SGILog24",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL of DNG",
}
"""Names of compressions, by the value of tag 259."""

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _MAKE = 254, 256, 257, 258, 259, 262, 271
_OFFSETS, _ORIENTATION, _SAMPLES, _COUNTS, _PLANAR, _SUB_PAGES = 273, 274, 277, 279, 284, 330
_TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT, _DNG_VERSION = 324, 325, 339, 50706
_BLOCKS = frozenset({_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS})
_READ = _BLOCKS | {_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR}
_READ |= {_SUB_PAGES, _SAMPLE_FORMAT}
# Bytes of one value of each field type (13 and 16 to 18 from later supplements).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT_TYPES = frozenset({1, 2, 6, 7})
_MAX_NUMBERS_BYTES = 1 << 20
_MAX_PAGES = 64
_MAX_VALUES = 64


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One page (directory) of a TIFF.

    Attributes:
      offset: of the directory.
      following: offset of the next page's directory; 0 after the last one.
      size: of the page.
      values: the integers of some tags, by tag.
      blocks: layout (for `struct`) and offset of the offsets and sizes of strips and tiles, by tag.
      is_of_camera: whether a tag names the maker of a camera or scanner, or DNG's version.
    """

    offset: int
    following: int
    size: ImageSize
    values: dict[int, tuple[int, ...]]
    blocks: dict[int, tuple[str, int]]
    is_of_camera: bool

    def value(self, tag: int, default: int) -> int:
        """Returns the first value of a tag."""
        found = self.values.get(tag)
        return found[0] if found else default

    @property
    def compression(self) -> int:
        """How the pixels are compressed; a key of `COMPRESSIONS`, or another number."""
        return self.value(_COMPRESSION, 1)

    @property
    def photometric(self) -> int:
        """The kind of colours, tag 262; -1 if it is missing."""
        return self.value(_PHOTOMETRIC, -1)

    @property
    def samples(self) -> int:
        """Number of samples of a pixel."""
        return self.value(_SAMPLES, 1)

    @property
    def bits(self) -> frozenset[int]:
        """The numbers of bits of a pixel's samples."""
        return frozenset(self.values.get(_BITS) or (1,))

    @property
    def orientation(self) -> int:
        """As in EXIF, 1 to 8 if it is valid."""
        return self.value(_ORIENTATION, 1)

    @property
    def has_planes(self) -> bool:
        """Whether each channel is stored on its own."""
        return self.value(_PLANAR, 1) == 2 and self.samples > 1

    @property
    def has_unsigned_samples(self) -> bool:
        """Whether the samples are unsigned integers."""
        return set(self.values.get(_SAMPLE_FORMAT, (1,))) == {1}

    @property
    def is_reduced(self) -> bool:
        """Whether the page declares itself to be a smaller version of another one."""
        return bool(self.value(_SUBFILE, 0) & 1)

    @property
    def is_of_sensor(self) -> bool:
        """Whether the page holds sensor data."""
        return self.photometric in SENSOR_PHOTOMETRICS

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.size.height * self.size.width

    @property
    def sub_pages(self) -> tuple[int, ...]:
        """Offsets of the directories of the sub-pages."""
        return self.values.get(_SUB_PAGES, ())

    def check_end(self, data: bytes) -> None:
        """Checks that the data holds all strips or tiles.

        Raises:
          ImageError: with reason `truncated`.
        """
        for _ in self.read_blocks(data):
            pass

    def read_blocks(self, data: bytes) -> Iterator[memoryview]:
        """Yields the compressed strips or tiles.

        Raises:
          ImageError: the data ends before one of them does.
        """
        tags = (_TILE_OFFSETS, _TILE_COUNTS) if _TILE_OFFSETS in self.blocks else (_OFFSETS, _COUNTS)
        places = (self.blocks.get(tag, ("", 0)) for tag in tags)
        for offset, count in zip(*(struct.unpack_from(layout, data, place) for layout, place in places), strict=False):
            if offset + count > len(data):
                raise truncated("tiff")
            yield memoryview(data)[offset : offset + count]


def find_picture(data: bytes) -> TiffPage:
    """Returns the first page, or the largest one if the first is a thumbnail.

    The first page is a thumbnail if a larger page exists, and: the first page declares itself to be a reduced version,
    the larger page is its sub-page or sensor data, or the file comes from a camera and the larger page has at least
    four times as many pixels.

    Raises:
      ImageError: the first page is damaged.
    """
    first = read_page(data, _first_offset(data))
    picture = first
    for page in _other_pages(data, first):
        is_main = first.is_reduced or page.offset in first.sub_pages or page.is_of_sensor
        if page.area > picture.area and (is_main or (first.is_of_camera and page.area >= 4 * first.area)):
            picture = page
    return picture


def starting_with(data: bytes, page: TiffPage) -> bytes:
    """Returns a TIFF whose first page is the given one."""
    if page.offset == _first_offset(data):
        return data
    order, big = _layout(data)
    start = 8 if big else 4
    stop = start + (8 if big else 4)
    return b"".join((data[:start], struct.pack(order + ("Q" if big else "I"), page.offset), data[stop:]))


def read_page(data: bytes, offset: int) -> TiffPage:
    """Returns the page of a directory. Also checks that its tags refer to no more bytes than the data has.

    Raises:
      ImageError: the directory is damaged.
    """
    order, big = _layout(data)
    (entries,) = unpack("tiff", order + ("Q" if big else "H"), data, offset)
    entry, entry_bytes, inline_bytes = (order + "HHQ", 20, 8) if big else (order + "HHI", 12, 4)
    pointer = order + ("Q" if big else "I")
    position = offset + (8 if big else 2)
    outside_bytes, is_of_camera = 0, False
    values: dict[int, tuple[int, ...]] = {}
    blocks: dict[int, tuple[str, int]] = {}
    for _ in range(entries):
        tag, kind, count = unpack("tiff", entry, data, position)
        place = position + entry_bytes - inline_bytes
        value_bytes = count * _TYPE_BYTES.get(kind, 0)
        if value_bytes > inline_bytes:
            outside_bytes += value_bytes
            if kind not in _TEXT_TYPES and value_bytes > _MAX_NUMBERS_BYTES:
                raise corrupt("tiff", f"tag {tag} has {count} values")
            if tag in _READ:
                (place,) = unpack("tiff", pointer, data, place)
        if tag in _READ and kind in _INTEGERS and place + value_bytes <= len(data):
            layout = f"{order}{count}{_INTEGERS[kind]}"
            if tag in _BLOCKS:
                blocks[tag] = layout, place
            elif 0 < count <= _MAX_VALUES:
                values[tag] = struct.unpack_from(layout, data, place)
        is_of_camera = is_of_camera or tag in (_MAKE, _DNG_VERSION)
        position += entry_bytes
    if outside_bytes > len(data):
        raise truncated("tiff")
    end = data[position : position + struct.calcsize(pointer)]
    following = struct.unpack(pointer, end)[0] if len(end) == struct.calcsize(pointer) else 0
    width, height = (values.get(tag, ()) for tag in (_WIDTH, _HEIGHT))
    size = ImageSize(height[0] if len(height) == 1 else 0, width[0] if len(width) == 1 else 0)
    return TiffPage(offset, following, size, values, blocks, is_of_camera)


def _layout(data: bytes) -> tuple[str, bool]:
    """Returns the byte order, for `struct`, and whether offsets have 64 bits."""
    return "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")


def _first_offset(data: bytes) -> int:
    order, big = _layout(data)
    (offset,) = unpack("tiff", order + ("Q" if big else "I"), data, 8 if big else 4)
    return int(offset)


def _other_pages(data: bytes, first: TiffPage) -> Iterator[TiffPage]:
    """Yields the readable sub-pages of the first page, the pages after it, and their sub-pages."""
    seen = {0, first.offset}
    waiting = [*first.sub_pages[:_MAX_PAGES], first.following]
    while waiting and len(seen) < _MAX_PAGES:
        offset = waiting.pop(0)
        if offset in seen:
            continue
        seen.add(offset)
        try:
            page = read_page(data, offset)
        except ImageError:  # a damaged page does not hide the others
            continue
        yield page
        waiting += [*page.sub_pages[:_MAX_PAGES], page.following]
