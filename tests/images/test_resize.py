import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import DECODER, tensorflow_resize


@pytest.mark.parametrize("source", [(1, 1), (2, 3), (20, 24), (40, 48), (57, 31), (119, 143)])
def test_resize_is_tensorflows_by_opencv(source):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    decoded = DECODER(samples.save(pixels, "PNG"))
    assert decoded.dtype == np.float32
    # The places between pixels, rounded to float32, are up to 2e-5 of a pixel apart.
    np.testing.assert_allclose(decoded, tensorflow_resize(pixels, 20, 24), atol=2e-5, rtol=0)


@pytest.mark.parametrize("source", [(121, 10), (10, 145), (400, 500), (1, 3000), (1200, 1600)])
def test_resize_is_tensorflows_by_gathering(source):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        DECODER(samples.save(pixels, "PNG")), tensorflow_resize(pixels, 20, 24), atol=1e-6, rtol=0
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
def test_resize_is_tensorflows_for_any_size(height, width, target_height, target_width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    decoded = ImageDecoder(target_height, target_width)(samples.save(pixels, "BMP"))
    expected = tensorflow_resize(pixels, target_height, target_width)
    np.testing.assert_allclose(decoded, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("height", [20, 57, 1000])
def test_white_is_one_and_black_is_nought(height):
    for value in (0, 255):
        image = Image.new("L", (31, height), value)
        assert set(np.unique(DECODER(samples.save(image, "PNG"))).tolist()) == {value / 255}
