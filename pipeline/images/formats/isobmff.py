"""The boxes of AVIF and HEIF files: brands, and size and turning of the primary image; decodes no pixels.

Layouts from ISO/IEC 14496-12 (boxes, `ftyp`, `meta`, `pitm`) and ISO/IEC 23008-12 (`iprp`, `ispe`, `irot`, `imir`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.images.damage import corrupt, truncated, unpack
from pipeline.images.formats.base import ImageSize
from pipeline.images.orientation import Turning, orientation_of_turning

_MAX_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class PrimaryImage:
    """The image that a file shows.

    Attributes:
      coded: its size as stored.
      size: its size after cropping (`clap`), before turning.
      orientation: how to turn it upright, as an EXIF orientation, from the properties `irot` and `imir`.
    """

    coded: ImageSize
    size: ImageSize
    orientation: int


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    stop: int


def brands(start: bytes) -> frozenset[bytes]:
    """Returns the brands of a file by its first bytes; none if it begins with another box than `ftyp`."""
    if start[4:8] != b"ftyp":
        return frozenset()
    stop = min(int.from_bytes(start[:4], "big"), len(start))
    return frozenset(start[place : place + 4] for place in (8, *range(16, stop - 3, 4)))


def read_primary(data: bytes, name: str) -> PrimaryImage:
    """Returns the primary image of a file.

    Args:
      data: the file.
      name: name of the format, for messages.

    Raises:
      ImageError: the file is damaged, ends early, or has no primary image.
    """
    top: dict[bytes, _Box] = {}
    for box in _boxes(data, 0, len(data), name):
        top.setdefault(box.kind, box)
        if b"meta" in top and b"mdat" in top:  # what follows the image is ignored
            break
    meta = top.get(b"meta")
    if meta is None:
        raise corrupt(name, "it has no primary image")
    inner = {box.kind: box for box in _boxes(data, meta.start + 4, meta.stop, name)}
    if b"pitm" not in inner or b"iprp" not in inner:
        raise corrupt(name, "it has no primary image")
    place = inner[b"pitm"].start
    (item,) = unpack(name, ">H" if data[place : place + 1] == b"\0" else ">I", data, place + 4)
    coded: ImageSize | None = None
    cropped: ImageSize | None = None
    turning = Turning()
    for box in _properties(data, inner[b"iprp"], item, name):
        if box.kind == b"ispe":
            width, height = unpack(name, ">II", data, box.start + 4)
            coded = ImageSize(height, width)
        elif box.kind == b"clap":
            width, width_parts, height, height_parts = unpack(name, ">IIII", data, box.start)
            if width_parts and height_parts:
                cropped = ImageSize(height // height_parts, width // width_parts)
        elif box.kind == b"irot":
            for _ in range(unpack(name, "B", data, box.start)[0] & 3):
                turning = turning.then_quarter()
        elif box.kind == b"imir":
            turning = turning.then_mirror(rows=not unpack(name, "B", data, box.start)[0] & 1)
    if coded is None:
        raise corrupt(name, "the primary image has no size")
    return PrimaryImage(coded, cropped or coded, orientation_of_turning(turning))


def _boxes(data: bytes, start: int, stop: int, name: str) -> Iterator[_Box]:
    """Yields the boxes between two offsets."""
    for _ in range(_MAX_BOXES):
        if start >= stop:
            return
        size, kind = unpack(name, ">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = unpack(name, ">Q", data, content)
            content += 8
        end = stop if size == 0 else start + size
        if end > stop:
            raise truncated(name)
        if end < content:
            raise corrupt(name, f"box {kind!r} at {start} has a size of {size} bytes")
        yield _Box(kind, content, end)
        start = end
    raise corrupt(name, f"more than {_MAX_BOXES} boxes")


def _properties(data: bytes, iprp: _Box, item: int, name: str) -> Iterator[_Box]:
    """Yields the properties of an item, in the order in which they apply."""
    boxes = list(_boxes(data, iprp.start, iprp.stop, name))
    properties = [each for box in boxes if box.kind == b"ipco" for each in _boxes(data, box.start, box.stop, name)]
    for box in boxes:
        if box.kind != b"ipma":
            continue
        version_and_flags, entries = unpack(name, ">II", data, box.start)
        has_long_ids, has_long_indices = version_and_flags >> 24 > 0, version_and_flags & 1
        place = box.start + 8
        for _ in range(min(entries, box.stop - place)):
            found, count = unpack(name, ">IB" if has_long_ids else ">HB", data, place)
            place += 5 if has_long_ids else 3
            indices = unpack(name, f">{count}{'H' if has_long_indices else 'B'}", data, place)
            place += count * (2 if has_long_indices else 1)
            if found == item:
                for index in indices:
                    index &= 0x7FFF if has_long_indices else 0x7F  # the upper bit marks essential properties
                    if 0 < index <= len(properties):
                        yield properties[index - 1]
