import dataclasses
import math

import numpy as np
import pytest

from pipeline.core.errors import InputError, ModuleError, OutputError, UsageError
from pipeline.core.json import to_json
from pipeline.dataset.metadata import require_spec
from pipeline.report.neighbours import Query, find_neighbours, find_query
from pipeline.testing import jpeg_bytes
from tests.datasets import add_wave, embed, make_batch, make_photos


def neighbours(output, key, count=10):
    return [item.key.decode() for item in find_neighbours(str(output), find_query(str(output), key), count)]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, tiny_module):
    """A data set of a module, and its photos."""
    directory = tmp_path_factory.mktemp("neighbours")
    make_photos(directory / "photos", 8)
    embed(directory / "photos", directory / "out", tiny_module)
    return directory


def test_the_nearest_rows_of_all_batches_without_the_key_itself(tmp_path):
    angles = {f"{number:02d}": math.radians(number**2 / 20) for number in range(40)}  # no two are equally near
    vectors = {key: [7 * math.cos(angle), 7 * math.sin(angle), 0] for key, angle in angles.items()}
    add_wave(tmp_path, "00000", *(make_batch({key: vector}) for key, vector in reversed(vectors.items())))
    add_wave(tmp_path, "00001", make_batch({"x": [math.cos(math.radians(20.5)), math.sin(math.radians(20.5)), 0]}))
    assert neighbours(tmp_path, "20", 5) == ["x", "19", "21", "18", "22"]
    first = find_neighbours(str(tmp_path), find_query(str(tmp_path), "20"), 1)[0]
    assert first.cosine == pytest.approx(math.cos(math.radians(0.5)), abs=1e-6)
    assert first.distance == pytest.approx(6.0, abs=0.01)
    assert len(neighbours(tmp_path, "20", 100)) == 40


def test_zeros_are_similar_to_nothing(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "b": [0, 0, 0], "c": [0.5, 0.5, 0]}))
    found = find_neighbours(str(tmp_path), Query("a", np.array([1, 0, 0], np.float32), None), 2)
    assert [(item.key, round(item.cosine, 4)) for item in found] == [(b"c", 0.7071), (b"b", 0)]


def test_an_image_has_the_bits_of_its_row(embedded):
    output = str(embedded / "out")
    query = find_query(output, str(embedded / "photos/003.jpg"))
    assert query.vector.tobytes() == find_query(output, "003.jpg").vector.tobytes()
    first = find_neighbours(output, query, 3)[0]
    assert (first.key, first.distance) == (b"003.jpg", 0)


def test_the_image_is_embedded_as_the_spec_says(tmp_path, tiny_module):
    make_photos(tmp_path / "photos", 2)
    flags = {"preprocess": "imagenet", "normalize": "l2", "decode": "fast"}
    embed(tmp_path / "photos", tmp_path / "out", tiny_module, **flags)
    query = find_query(str(tmp_path / "out"), str(tmp_path / "photos/001.jpg"))
    assert find_neighbours(str(tmp_path / "out"), query, 1)[0].distance == 0


def test_what_is_neither_a_key_nor_an_image(embedded, tmp_path):
    output = str(embedded / "out")
    with pytest.raises(
        InputError, match=r"^none\\n is neither a key of .*/out nor an image file; name one of its keys"
    ):
        find_query(output, "none\n")
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"bad\.jpg cannot be embedded: not_an_image: "):
        find_query(output, str(tmp_path / "bad.jpg"))
    with pytest.raises(OutputError, match="holds no data set"):
        find_query(str(tmp_path), "a")
    with pytest.raises(UsageError, match=r"^--count=0: expected at least 1$"):
        find_neighbours(output, find_query(output, "000.jpg"), 0)


def test_a_module_that_has_changed_or_that_no_one_has(embedded, tmp_path, convolutions):
    (tmp_path / "new.jpg").write_bytes(jpeg_bytes(seed=99))
    output = str(embedded / "out")
    with pytest.raises(ModuleError, match=r"digest"):
        find_query(output, str(tmp_path / "new.jpg"), module=convolutions)
    own = tmp_path / "own"
    add_wave(own, "00000", make_batch({"a": [1, 0, 0]}))
    spec = dataclasses.replace(require_spec(str(own)), engine="colour-histogram")
    (own / "spec.json").write_bytes(to_json(spec))
    with pytest.raises(OutputError, match=r"has the vectors of the custom engine colour-histogram; expected one of"):
        find_query(str(own), str(tmp_path / "new.jpg"))
