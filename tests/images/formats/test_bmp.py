import struct

import numpy as np
import pytest

from pipeline.images.decoder import ImageDecoder
from pipeline.images.headers import ImageHeader, read_header
from tests import image_samples as samples
from tests.images.decoding import bytes_of, refusal


def test_layouts_that_pillow_does_not_know():
    bmp = bytearray(samples.ONE_OF_EACH_FORMAT["bmp"])
    bmp[28] = 7  # bits of a pixel
    error = refusal(bytes(bmp))
    assert error.reason == "unsupported_format"
    assert str(error) == "an unusual bmp: Unsupported BMP pixel depth (7); convert it to PNG or JPEG"


def test_bmp_rows_from_the_top_and_old_header():
    data = samples.ONE_OF_EACH_FORMAT["bmp"]
    upside_down = data[:22] + struct.pack("<i", -samples.HEIGHT) + data[26:]
    assert read_header(upside_down).height == samples.HEIGHT
    old = b"BM" + struct.pack("<IHHIIHHHH", 26, 0, 0, 26, 12, 5, 6, 1, 24)
    assert read_header(old) == ImageHeader("bmp", 6, 5)


FIELDS = {
    "rgba": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "argb": (32, (0xFF00, 0xFF0000, 0xFF000000, 0xFF)),
    "rgbx": (32, (0xFF, 0xFF00, 0xFF0000, 0)),
    "bgra": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    "4 bits": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "565 swapped": (16, (0x1F, 0x7E0, 0xF800, 0)),
}


def bit_fields(
    bits: int, masks: tuple[int, ...], header_bytes: int, compression: int = 3, height: int = 20
) -> tuple[bytes, np.ndarray]:
    """A BMP of random words, 25 pixels wide; and its colours, computed from their definition."""
    words = np.random.default_rng(0).integers(0, 1 << bits, (abs(height), 25), dtype=np.uint64)
    body = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in words.astype(f"<u{bits // 8}"))
    fields = struct.pack("<IIII", *masks)[: 12 if header_bytes < 56 and compression == 3 else 16]
    header = struct.pack("<IiiHHIIiiII", header_bytes, 25, height, 1, bits, compression, len(body), 0, 0, 0, 0) + fields
    header = header.ljust(header_bytes, b"\0")
    start = 14 + len(header)
    channels = []
    for mask in masks[:3]:
        shift = (mask & -mask).bit_length() - 1
        largest = mask >> shift
        value = (words & np.uint64(mask)) >> np.uint64(shift)
        channels.append(value * 255 // largest if largest <= 255 else value >> np.uint64(largest.bit_length() - 8))
    expected = np.stack(channels, axis=-1).astype(np.uint8)
    data = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body
    return data, expected if height < 0 else expected[::-1]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("header_bytes", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("height", [20, -20])
def test_bit_fields(name, header_bytes, height):
    bits, masks = FIELDS[name]
    data, expected = bit_fields(bits, masks, header_bytes, height=height)
    np.testing.assert_array_equal(bytes_of(ImageDecoder(20, 25)(data)), expected)
    assert refusal(data[:-1]).reason == "truncated"


@pytest.mark.parametrize("name", FIELDS)
def test_alpha_bit_fields(name):
    bits, masks = FIELDS[name]
    data, expected = bit_fields(bits, masks, 40, compression=6)
    np.testing.assert_array_equal(bytes_of(ImageDecoder(20, 25)(data)), expected)


@pytest.mark.parametrize("bits", [16, 32])
def test_a_colour_without_bits(bits):
    error = refusal(bit_fields(bits, (0xF00, 0xF0, 0xF, 0), 108)[0].replace(struct.pack("<I", 0xF0), bytes(4), 1))
    assert (error.reason, str(error)) == ("not_an_image", "corrupt bmp: a colour has no bits")
