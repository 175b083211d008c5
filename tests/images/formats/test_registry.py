import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from pipeline.core.errors import ImageError
from pipeline.images.decoder import ImageDecoder
from pipeline.images.formats.base import DecodeRequest, ImageFormat, ImageSize
from pipeline.images.formats.registry import EXTENSIONS, FORMATS
from pipeline.images.headers import ImageHeader, read_header
from tests import image_samples as samples


@dataclass(frozen=True)
class Flat:
    """A format as a user would add it: `FLAT`, height, width, and the one colour of all pixels."""

    name: ClassVar[str] = "flat"
    title: ClassVar[str] = "Flat"
    extensions: ClassVar[tuple[str, ...]] = (".flat",)

    def matches(self, start: bytes) -> bool:
        return start.startswith((b"FLAT", b"\xff\x0a"))

    def read_size(self, data: bytes) -> ImageSize:
        return ImageSize(data[4], data[5])

    def decode(self, data: bytes, request: DecodeRequest) -> np.ndarray:
        red, green, blue = data[6:]
        return np.full((data[4], data[5], 3), (red, green, blue), np.uint8)


WITH_FLAT: tuple[ImageFormat, ...] = (*FORMATS, Flat())
DECODER = ImageDecoder(2, 5, formats=WITH_FLAT)
IMAGE = b"FLAT\x09\x07\xff\x00\x33"


def test_a_format_is_one_class_and_one_registration():
    assert read_header(IMAGE, WITH_FLAT) == ImageHeader("flat", 9, 7)
    decoded = DECODER(IMAGE)
    assert decoded.shape == (2, 5, 3)
    np.testing.assert_allclose(decoded, np.broadcast_to([1, 0, 0.2], (2, 5, 3)), atol=1e-6)
    np.testing.assert_array_equal(
        DECODER(samples.ONE_OF_EACH_FORMAT["png"]), ImageDecoder(2, 5)(samples.ONE_OF_EACH_FORMAT["png"])
    )
    assert pickle.loads(pickle.dumps(DECODER)) == DECODER


def test_a_registered_format_takes_precedence_over_a_refused_one():
    data = b"\xff\x0aXL\x02\x02\1\2\3"
    with pytest.raises(ImageError, match=r"^a JPEG XL image; expected JPEG, PNG, .*, AVIF or HEIC: convert it"):
        read_header(data)
    assert read_header(data, WITH_FLAT).format == "flat"


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (IMAGE[:-1], "not_an_image", "corrupt flat: not enough values to unpack (expected 3, got 2)"),
        (b"FLAT\x09", "not_an_image", "corrupt flat: index out of range"),
        (b"FLAT\0\5", "not_an_image", "the flat header gives a size of 0x5 pixels"),
        (b"", "empty", "0 bytes; expected JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, HEIC or Flat"),
    ],
)
def test_errors_name_an_added_format(data, reason, message):
    with pytest.raises(ImageError) as caught:
        DECODER(data)
    assert (caught.value.reason, str(caught.value)) == (reason, message)


def test_limits_hold_for_an_added_format():
    with pytest.raises(ImageError, match=r"^9x7 pixels are more than the limit of 62: "):
        ImageDecoder(2, 5, formats=WITH_FLAT, max_pixels=62)(IMAGE)


def test_only_the_formats_given_are_decoded():
    with pytest.raises(ImageError, match=r"^no known image begins with b'\\x89PNG.*; expected Flat$"):
        ImageDecoder(2, 5, formats=(Flat(),))(samples.ONE_OF_EACH_FORMAT["png"])


def test_names_are_unique():
    assert [image_format.name for image_format in FORMATS] == list(samples.ONE_OF_EACH_FORMAT)
    assert len(set(EXTENSIONS)) == len(EXTENSIONS)
    assert all(extension.startswith(".") and extension == extension.lower() for extension in EXTENSIONS)


def test_names_need_no_decoding_library(pytestconfig):
    code = (
        "import sys, pipeline.images.formats.registry, pipeline.images.headers\n"
        "print([name for name in ('PIL', 'cv2', 'numpy', 'simplejpeg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert (done.returncode, done.stdout) == (0, "[]\n")
