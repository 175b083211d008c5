import numpy as np

from pipeline.core.records import Feature
from pipeline.report.sample import read_sample
from tests.datasets import add_wave, make_batch

KEYS = [f"{number:03d}" for number in range(300)]


def vectors(keys):
    return {key: [float(key), 1, 0] for key in keys}


def test_all_rows_by_key_if_there_are_few(tmp_path):
    add_wave(tmp_path, "00000", make_batch(vectors(["002", "000"])), make_batch(vectors(["001"])))
    sample = read_sample(str(tmp_path), 3, 3, seed=0)
    assert (sample.keys, sample.total) == ((b"000", b"001", b"002"), 3)
    assert sample.vectors.dtype == np.float32
    np.testing.assert_array_equal(sample.vectors, [[0, 1, 0], [1, 1, 0], [2, 1, 0]])


def test_a_sample_does_not_depend_on_the_order_of_the_rows(tmp_path):
    add_wave(tmp_path / "a", "00000", *(make_batch(vectors([key])) for key in KEYS))
    add_wave(tmp_path / "b", "00000", make_batch(vectors(KEYS[::-1])))
    one, other = (read_sample(str(tmp_path / name), 3, 20, seed=0) for name in "ab")
    assert one.total == other.total == 300
    assert one.keys == other.keys
    assert len(set(one.keys)) == 20
    assert one.keys != read_sample(str(tmp_path / "a"), 3, 20, seed=1).keys
    assert [float(key) for key in one.keys] == one.vectors[:, 0].tolist()
    # A larger sample has the rows of a smaller one.
    assert set(read_sample(str(tmp_path / "b"), 3, 10, seed=0).keys) < set(one.keys)


def test_rows_that_share_a_key_do_not_exceed_the_limit(tmp_path):
    add_wave(tmp_path, "00000", *(make_batch({"same": [number, 0, 0]}) for number in range(50)))
    assert len(read_sample(str(tmp_path), 3, 4, seed=0).keys) == 4


def test_columns_that_not_all_rows_have(tmp_path):
    label = {"label": Feature("int64", (7,))}
    add_wave(tmp_path, "00000", make_batch(vectors(["000"])), make_batch(vectors(["001"]), features=label))
    assert read_sample(str(tmp_path), 3, 9, seed=0).columns.to_pydict() == {"label": [None, [7]]}


def test_a_data_set_without_rows(tmp_path):
    add_wave(tmp_path, "00000", make_batch({}))
    sample = read_sample(str(tmp_path), 3, 9, seed=0)
    assert (sample.keys, sample.vectors.shape, sample.total) == ((), (0, 3), 0)
