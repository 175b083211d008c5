import struct

from pipeline.images.headers import ImageHeader, read_header
from tests import image_samples as samples
from tests.images.decoding import refusal


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
