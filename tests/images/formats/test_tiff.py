import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.images.headers import ImageHeader, read_header
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, DECODER, bytes_of, header_refusal, refusal


@pytest.mark.parametrize("name", ["tiff L", "tiff LA"])
def test_grey_pixels(name):
    grey = np.asarray(samples.image("L"))
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(samples.OTHERS[name])), np.stack([grey] * 3, axis=-1))


def test_tiff_of_16_bits_keeps_the_upper_ones():
    upper = (samples.samples_of_16_bits(1) >> 8).astype(np.uint8)
    decoded = bytes_of(AS_IT_IS(samples.OTHERS["tiff 16-bit grey"]))
    np.testing.assert_array_equal(decoded, np.stack([upper] * 3, axis=-1))


def test_tiff_of_16_bits_where_white_is_zero():
    data = samples.save(Image.fromarray(samples.samples_of_16_bits(1).astype("<u2")), "TIFF", tiffinfo={262: 0})
    upper = 255 - (samples.samples_of_16_bits(1) >> 8).astype(np.uint8)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data))[..., 0], upper)


def test_pixel_types_that_are_not_taken():
    for samples_, mode in ((np.zeros((9, 9), np.float32), "F"), (np.zeros((9, 9), np.int32), "I")):
        error = refusal(samples.save(Image.fromarray(samples_), "TIFF"))
        assert error.reason == "unsupported_format"
        assert str(error) == (
            f"a TIFF of Pillow's mode {mode}; expected integers of up to 8 bits, or of 16: convert it"
        )
    assert refusal(samples.save(Image.new("LAB", (9, 9)), "TIFF")).reason == "unsupported_format"


def test_tiff_whose_directories_form_a_circle():
    data = bytearray(samples.ONE_OF_EACH_FORMAT["tiff"])
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    np.testing.assert_array_equal(DECODER(bytes(data)), DECODER(samples.ONE_OF_EACH_FORMAT["tiff"]))


def test_tiff_of_either_byte_order():
    big_endian = b"MM\0*" + struct.pack(">IH", 8, 2)
    big_endian += struct.pack(">HHIHH", 256, 3, 1, 70, 0) + struct.pack(">HHII", 257, 4, 1, 90)
    assert read_header(big_endian) == ImageHeader("tiff", 90, 70)


def test_tiff_tags_that_would_take_more_memory_than_the_file():
    many = samples.tiff({256: (3, 1, b"\5\0\0\0"), 282: (5, 200_000, b"\x40\0\0\0")}, bytes(2_000_000))
    assert str(header_refusal(many)) == "corrupt tiff: tag 282 has 200000 values"
    overlapping = {tag: (1, 900, struct.pack("<I", 100)) for tag in range(40_000, 40_050)}
    assert header_refusal(samples.tiff(overlapping, bytes(1000))).reason == "truncated"


@pytest.mark.parametrize("directory", [100, 1 << 40, (1 << 64) - 1])
def test_big_tiff_whose_directory_lies_beyond_its_end(directory):
    error = header_refusal(b"II+\0\x08\0\0\0" + struct.pack("<Q", directory))
    assert (error.reason, str(error)) == ("truncated", "the tiff data ends before the image does: fetch the file again")


def test_header_of_a_tiff_whose_directories_form_a_circle():
    data = bytearray(samples.ONE_OF_EACH_FORMAT["tiff"])
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    assert read_header(bytes(data)).width == samples.WIDTH
