import struct

import numpy as np
import pytest

from pipeline.core.errors import ImageError
from pipeline.images.decoder import ImageDecoder
from pipeline.images.formats.gif import first_frame
from tests import image_samples as samples
from tests.images.decoding import DECODER, claim_size, refusal


def test_gif_needs_only_its_first_frame():
    data = samples.ALL["gif animation"]
    np.testing.assert_array_equal(DECODER(data[: len(data) * 2 // 3]), DECODER(data))


def test_gif_frame_beyond_its_canvas():
    data = claim_size("gif", 1, 1)
    assert refusal(data, ImageDecoder(5, 5, max_pixels=100)).reason == "too_large"


def test_gif_of_endless_frames():
    data = samples.ALL["gif animation"]
    frame = data[data.rindex(b"," + struct.pack("<HHHH", 0, 0, samples.WIDTH, samples.HEIGHT)) : -1]
    np.testing.assert_array_equal(DECODER(data[:-1] + frame * 2000), DECODER(data))


def test_gif_of_endless_comments():
    data = samples.ONE_OF_EACH_FORMAT["gif"]
    first_frame = 13 + 3 * 256
    many = data[:first_frame] + b"\x21\xfe\x01a\0" * 200_000 + data[first_frame:]
    np.testing.assert_array_equal(DECODER(many), DECODER(data))


def test_gif_loses_what_comes_before_its_first_frame():
    data = samples.ONE_OF_EACH_FORMAT["gif"]
    start = 13 + 3 * 256
    assert data[start] == ord(",")
    comments = b"\x21\xfe\x02ab\x01c\0" * 2 + b"stray" + b"\x21\xf9\x04\0\0\0\0\0"
    assert first_frame(data[:start] + comments + data[start:]) == data
    for cut in (3, 8, 12):
        with pytest.raises(ImageError, match="the gif data ends"):
            first_frame(data[:start] + comments[:cut])
    with pytest.raises(ImageError, match="corrupt gif: it ends without a frame"):
        first_frame(data[:start] + b";")
