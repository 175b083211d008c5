"""Which page of a TIFF is the picture."""

import io

import numpy as np
import pytest
import tifffile

from pipeline.images.decoder import ImageDecoder
from pipeline.images.formats.tiff_pages import find_picture
from tests import image_samples as samples
from tests.images.decoding import bytes_of, refusal

THUMBNAIL = samples.pixels(height=16, width=20, seed=1)
PICTURE = samples.pixels()


def pages(*written: tuple[np.ndarray, dict], **options: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as tiff:
        for samples_, tags in written:
            tiff.write(samples_, **{"photometric": "rgb", "metadata": None, **tags})
    return file.getvalue()


LAYOUTS = [{"byteorder": order, "bigtiff": big} for order in "<>" for big in (False, True)]
CFA = {"photometric": "cfa", "extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes((0, 1, 1, 2)), True)]}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"subfiletype": 1}, {}),  # declared to be reduced
        ({"subifds": 1}, {}),  # the picture is its sub-page
        ({"subfiletype": 1, "subifds": 1}, {"compression": "zlib"}),
        ({"extratags": [(271, 2, 0, "Maker", True)]}, {}),  # of a camera
    ],
)
def test_the_picture_comes_after_its_thumbnail(layout, first, second):
    data = pages((THUMBNAIL, first), (PICTURE, second), **layout)
    page = find_picture(data)
    assert (page.size.height, page.size.width) == (samples.HEIGHT, samples.WIDTH)
    np.testing.assert_array_equal(bytes_of(ImageDecoder(samples.HEIGHT, samples.WIDTH)(data)), PICTURE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tags", [{}, {"software": "x"}, {"subfiletype": 2}])
def test_pages_of_a_document_are_no_pictures_of_each_other(layout, tags):
    data = pages((THUMBNAIL, tags), (PICTURE, {}), **layout)
    np.testing.assert_array_equal(bytes_of(ImageDecoder(16, 20)(data)), THUMBNAIL)


def test_smaller_pages_are_no_pictures():
    for tags in ({"subifds": 1}, {"extratags": [(271, 2, 0, "Maker", True)]}):
        data = pages((PICTURE, tags), (THUMBNAIL, {"subfiletype": 1}))
        np.testing.assert_array_equal(bytes_of(ImageDecoder(samples.HEIGHT, samples.WIDTH)(data)), PICTURE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("first", [{"subfiletype": 1}, {"subifds": 1}, {}])
def test_sensor_data_is_refused(layout, first):
    sensor = np.zeros((60, 80), np.uint16)
    error = refusal(pages((THUMBNAIL, first), (sensor, CFA), **layout))
    assert (error.reason, str(error)) == (
        "unsupported_format",
        "a camera raw file: the 60x80 pixels of its picture are sensor data; develop it to JPEG or TIFF first",
    )


def test_limits_hold_for_the_picture():
    data = pages((THUMBNAIL, {"subifds": 1}), (PICTURE, {}))
    assert refusal(data, ImageDecoder(20, 24, max_pixels=1000)).reason == "too_large"


def test_a_damaged_page_hides_no_other():
    data = pages((THUMBNAIL, {"subfiletype": 1}), (PICTURE, {}))
    second = find_picture(data).offset
    damaged = data[:second] + b"\xff\xff" + data[second + 2 :]
    np.testing.assert_array_equal(bytes_of(ImageDecoder(16, 20)(damaged)), THUMBNAIL)
