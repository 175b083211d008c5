import pytest
from PIL import Image

from pipeline.images.headers import read_header
from tests import image_samples as samples


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (1000, 2), (16383, 1)])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}])
def test_webp_size_in_each_of_its_three_headers(size, options):
    data = samples.save(Image.new("RGB", (size[1], size[0])), "WEBP", **options)
    assert (read_header(data).height, read_header(data).width) == size
