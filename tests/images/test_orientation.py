import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.images.decoder import ImageDecoder
from tests import image_samples as samples
from tests.images.decoding import AS_IT_IS, DECODER, bytes_of, oriented


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_if_asked_for(image_format, orientation):
    data = oriented(image_format, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    decoder = ImageDecoder(upright.height, upright.width, exif_orientation=True)
    np.testing.assert_array_equal(bytes_of(decoder(data)), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_ignored_otherwise(image_format, orientation):
    np.testing.assert_array_equal(AS_IT_IS(oriented(image_format, orientation)), AS_IT_IS(oriented(image_format, 1)))


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_impossible_orientation_means_upright(orientation):
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    np.testing.assert_array_equal(decoder(oriented("JPEG", orientation)), DECODER(oriented("JPEG", 1)))


def test_damaged_exif_means_upright():
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        data = samples.save(samples.pixels(), "JPEG", exif=exif)
        np.testing.assert_array_equal(decoder(data), DECODER(data))


def test_huge_exif_is_not_read():
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + bytes(1 << 16)
    plain, huge = (
        samples.png(samples.pixels(), 8, 2, samples.png_chunk(b"eXIf", exif[:size])) for size in (26, len(exif))
    )
    decoder = ImageDecoder(20, 24, exif_orientation=True)
    np.testing.assert_array_equal(decoder(huge), DECODER(plain))
    assert np.abs(decoder(plain) - decoder(huge)).max() > 0.1
