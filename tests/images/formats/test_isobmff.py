"""AVIF and HEIF: pixels, turning, limits, damage."""

import io
import struct
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pipeline.images.decoder import ImageDecoder
from pipeline.images.formats.isobmff import read_primary
from pipeline.images.headers import ImageHeader, read_header
from pipeline.images.orientation import turn
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, bytes_of, oriented, refusal

FORMATS = ("avif", "heif")
UPRIGHT = ImageDecoder(samples.WIDTH, samples.HEIGHT, exif_orientation=True)


@pytest.mark.parametrize("name", [name for name in samples.OTHERS if name.startswith(FORMATS)])
def test_pixels(name):
    expected = samples.image("L").convert("RGB") if "grey" in name else samples.image()
    decoded = bytes_of(AS_IT_IS(samples.OTHERS[name])).astype(int)
    assert np.abs(decoded - np.asarray(expected)).max() < 40
    assert np.abs(decoded - np.asarray(expected)).mean() < 8


def test_headers():
    assert read_header(samples.OTHERS["avif"]) == ImageHeader("avif", samples.HEIGHT, samples.WIDTH)
    assert read_header(samples.OTHERS["heif"]) == ImageHeader("heif", samples.HEIGHT, samples.WIDTH)


def with_turning(heif: bytes, quarters: int | None, mirror: int | None, order: tuple[bytes, ...]) -> bytes:
    """A HEIF with `irot` and `imir` properties of its only item, applied in an order."""
    boxes = {b"irot": quarters, b"imir": mirror}
    added = [(kind, bytes((value,))) for kind in order if (value := boxes[kind]) is not None]
    ipco, ipma = heif.index(b"ipco") - 4, heif.index(b"ipma") - 4
    properties = b"".join(struct.pack(">I4s", 8 + len(content), kind) + content for kind, content in added)
    number = heif[ipco + 8 : ipma].count(b"") and _count_boxes(heif[ipco + 8 : ipma])
    indices = bytes(0x80 | (number + 1 + each) for each in range(len(added)))
    count = ipma + 8 + 4 + 4 + 2  # after the header, version, number of entries, and item
    assert heif[ipma + 12 : ipma + 16] == struct.pack(">I", 1)
    entries = heif[count : count + 1 + heif[count]]
    return _grown(heif, (ipco, len(properties)), (ipma, len(indices)), {
        ipma: properties,
        count + len(entries): indices,
    }, count)  # fmt: skip


def _count_boxes(data: bytes) -> int:
    number = place = 0
    while place < len(data):
        place += int.from_bytes(data[place : place + 4], "big")
        number += 1
    return number


def _grown(heif: bytes, ipco: tuple[int, int], ipma: tuple[int, int], inserted: dict[int, bytes], count: int) -> bytes:
    data = bytearray(heif)
    more = ipco[1] + ipma[1]
    for kind, by in ((b"meta", more), (b"iprp", more), (b"ipco", ipco[1]), (b"ipma", ipma[1])):
        place = data.index(kind) - 4
        struct.pack_into(">I", data, place, int.from_bytes(data[place : place + 4], "big") + by)
    data[count] += ipma[1]
    # The offset of the pixels, in the only extent of `iloc`.
    old = heif.index(b"mdat") + 4
    place = data.index(struct.pack(">I", old), data.index(b"iloc"))
    struct.pack_into(">I", data, place, old + more)
    for place, content in sorted(inserted.items(), reverse=True):
        data[place:place] = content
    return bytes(data)


MIRRORED = {None: (False, False), 0: (True, False), 1: (False, True)}


def turned(pixels: np.ndarray, quarters: int, mirror: int | None) -> np.ndarray:
    """What ISO/IEC 23008-12 says: quarter turns anticlockwise, then a mirroring (0: upside down)."""
    rows, columns = MIRRORED[mirror]
    return np.rot90(pixels, quarters)[:: -1 if rows else 1, :: -1 if columns else 1]


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirror", [None, 0, 1])
def test_orientation_of_turnings(quarters, mirror):
    pixels = samples.pixels(height=64, width=64)
    data = with_turning(samples.heif(Image.fromarray(pixels)), quarters, mirror, (b"irot", b"imir"))
    orientation = read_primary(data, "heif").orientation
    np.testing.assert_array_equal(turn(pixels, orientation), turned(pixels, quarters, mirror))
    stored = bytes_of(ImageDecoder(64, 64)(data))
    upright = bytes_of(ImageDecoder(64, 64, exif_orientation=True)(data))
    assert np.abs(stored.astype(int) - pixels).mean() < 4
    np.testing.assert_array_equal(upright, turned(stored, quarters, mirror))


@pytest.mark.parametrize("quarters", [1, 3])
def test_the_order_of_turnings_counts(quarters):
    pixels = samples.pixels(height=64, width=64)
    data = with_turning(samples.heif(Image.fromarray(pixels)), quarters, 1, (b"imir", b"irot"))
    upright = turn(pixels, read_primary(data, "heif").orientation)
    np.testing.assert_array_equal(upright, np.rot90(pixels[:, ::-1], quarters))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(orientation):
    """Pillow's encoder writes the EXIF orientation as `irot` and `imir`, its decoder both back as EXIF."""
    data = oriented("AVIF", orientation)
    assert read_primary(data, "avif").orientation == orientation
    stored = bytes_of(AS_IT_IS(data))
    upright = ImageDecoder(*turn(stored, orientation).shape[:2], exif_orientation=True)(data)
    np.testing.assert_array_equal(bytes_of(upright), turn(stored, orientation))


def test_the_exif_block_alone_turns_nothing():
    exif = Image.Exif()
    exif[274] = 6
    data = samples.heif(Image.fromarray(samples.pixels(height=64, width=64)), exif=exif.tobytes())
    assert read_primary(data, "heif").orientation == 6  # the encoder writes both
    quarters = data.index(b"irot") + 4
    data = data[:quarters] + b"\0" + data[quarters + 1 :]
    upright = ImageDecoder(64, 64, exif_orientation=True)
    np.testing.assert_array_equal(upright(data), ImageDecoder(64, 64)(data))


def test_heif_of_10_bits_keeps_the_upper_8():
    pixels = samples.pixels(height=64, width=64)
    file = io.BytesIO()
    wide = pixels.astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", (64, 64), wide.tobytes()).save(file, quality=90, chroma=444)
    assert np.abs(bytes_of(ImageDecoder(64, 64)(file.getvalue())).astype(int) - pixels).mean() < 4


def test_heif_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = refusal(samples.OTHERS["heif"])
    assert (error.reason, str(error)) == (
        "unsupported_format",
        "a HEIC image: pip install 'embedding-pipeline[heif]', or convert it to PNG or JPEG",
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("box", "message"),
    [
        (b"meta", "it has no primary image"),
        (b"pitm", "it has no primary image"),
        (b"iprp", "it has no primary image"),
        (b"ispe", "the primary image has no size"),
    ],
)
def test_missing_boxes(name, box, message):
    error = refusal(samples.OTHERS[name].replace(box, b"free"))
    assert (error.reason, str(error)) == ("not_an_image", f"corrupt {name}: {message}")


@pytest.mark.parametrize("size", [1, 7])
def test_boxes_of_impossible_sizes(size):
    data = samples.OTHERS["avif"]
    meta = data.index(b"meta") - 4
    damaged = data[:meta] + struct.pack(">I", size) + data[meta + 4 :]
    assert refusal(damaged).reason in ("not_an_image", "truncated")
