import zlib

import numpy as np
import pytest

from pipeline.core.errors import ImageError
from pipeline.images.formats.png import pixel_chunks
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, bytes_of, in_the_middle, refusal


def test_png_with_a_wrong_checksum():
    error = refusal(in_the_middle(samples.ONE_OF_EACH_FORMAT["png"], b"\0\0\0"))
    assert error.reason == "not_an_image"
    assert str(error) == "corrupt png: the checksum of chunk b'IDAT' at 33 is wrong"


def test_png_whose_pixels_do_not_unpack():
    data = samples.png(samples.pixels(), 8, 2)
    header = data[:33]
    for content in (b"", b"nonsense", bytes(100)):
        damaged = header + samples.png_chunk(b"IDAT", content) + samples.png_chunk(b"IEND", b"")
        assert refusal(damaged).reason in ("not_an_image", "truncated")


def test_png_with_texts_and_profiles_that_unpack_to_much():
    bomb = zlib.compress(bytes(20_000_000))
    chunks = samples.png_chunk(b"iCCP", b"p\0\0" + bomb) + samples.png_chunk(b"zTXt", b"t\0\0" + bomb) * 20
    pixels = samples.pixels()
    data = samples.png(pixels, 8, 2, chunks, chunks)
    np.testing.assert_array_equal(bytes_of(AS_IT_IS(data)), pixels)


def test_png_keeps_only_what_matters():
    text = samples.png_chunk(b"zTXt", b"comment\0\0" + bytes(1000))
    pixels = samples.pixels()
    plain = samples.png(pixels, 8, 2)
    assert pixel_chunks(samples.png(pixels, 8, 2, text, text) + b"trailing bytes") == plain


@pytest.mark.parametrize("place", [20, 40, -20, -6])
def test_any_chunk_with_a_wrong_checksum(place):
    data = bytearray(samples.png(np.zeros((9, 9), np.uint8), 8, 0))
    data[place] ^= 1
    with pytest.raises(ImageError, match=r"^corrupt png: the checksum of chunk b'\w+' at \d+ is wrong$") as caught:
        pixel_chunks(bytes(data))
    assert caught.value.reason == "not_an_image"
