import pytest

from tests.datasets import make_photos
from tests.image_samples import pixels, save


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(scope="session")
def fifty_photos(tmp_path_factory):
    """A directory of photos of many sizes and ratios."""
    directory = tmp_path_factory.mktemp("fifty photos")
    for index in range(50):
        sides = {"height": 40 + 7 * index, "width": 300 - 5 * index}
        (directory / f"{index:02d}.jpg").write_bytes(save(pixels(seed=index, **sides), "JPEG"))
    return directory
