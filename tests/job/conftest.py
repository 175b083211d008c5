import pytest

from tests.datasets import make_photos


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
