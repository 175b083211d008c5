import numpy as np
import pytest

from pipeline.core.errors import UsageError
from pipeline.dataset.recompute import Sample, StoredSample
from tests.datasets import add_wave, make_batch, make_failure

KEYS = [f"{number:04d}" for number in range(500)]


@pytest.fixture
def out(tmp_path):
    add_wave(tmp_path / "out", "00000", make_batch({"a": [3, 4, 0], "b": [1, 0, 0], "c": [0, 0, 2]}))
    return str(tmp_path / "out")


def test_a_sample_has_about_its_share_of_the_keys_and_always_the_same():
    chosen = [key for key in KEYS if Sample(0.2).holds(key.encode())]
    assert 70 < len(chosen) < 130
    assert chosen == [key for key in KEYS if Sample(0.2).holds(key.encode())]
    assert chosen != [key for key in KEYS if Sample(0.2, seed=1).holds(key.encode())]
    assert all(Sample(1).holds(key.encode()) for key in KEYS)
    # A larger share has the keys of a smaller one.
    assert all(Sample(0.3).holds(key.encode()) for key in chosen)


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UsageError, match=r"^--recompute=\S+ is not a share of the rows; it must be above 0 and at"):
        Sample(share)


def test_a_sample_without_rows_is_refused(out):
    with pytest.raises(UsageError, match=r"^--recompute=1e-09 chooses none of the 3 rows of .*; name a larger share$"):
        StoredSample(out, Sample(1e-9))


def test_vectors_are_identical_close_different_or_missing(out):
    stored = StoredSample(out, Sample(1))
    assert b"a" in stored
    assert b"x" not in stored
    stored.add([b"a", b"b"], np.array([[3, 4, 0], [1, 1e-5, 0]], np.float32))
    result = stored.compare(1e-4)
    assert (result.rows, result.sampled, result.identical, result.close) == (3, 3, 1, 1)
    assert (result.different, result.missing) == (0, 1)
    assert result.largest == pytest.approx(1e-5, rel=1e-3)
    assert result.problems == ("c: none of the inputs has this key; name the inputs and the key feature of the run",)
    assert stored.compare(1e-6).problems[0] == "b: the vector differs by 1.0e-05, relative L2; expected at most 1e-06"


def test_a_record_that_fails_now_is_missing_with_its_reason(out):
    stored = StoredSample(out, Sample(1))
    stored.add([b"a", b"b"], np.array([[3, 4, 0], [1, 0, 0]], np.float32))
    stored.add_failures([make_failure("c"), make_failure("not in the data set")])
    assert stored.compare(1e-4).problems == ("c: fails now: truncated: made up",)


def test_values_that_are_no_numbers_are_different(out):
    stored = StoredSample(out, Sample(1))
    stored.add([b"a", b"b", b"c"], np.array([[3, np.nan, 0], [1, 0, 0], [0, 0, 2]], np.float32))
    assert (stored.compare(1e-4).different, stored.compare(1e-4).identical) == (1, 2)


def test_of_rows_with_one_key_the_nearest_counts(tmp_path):
    add_wave(tmp_path / "out", "00000", make_batch({"a": [1, 0, 0]}), make_batch({"a": [0, 1, 0]}))
    stored = StoredSample(str(tmp_path / "out"), Sample(1))
    stored.add([b"a", b"a"], np.array([[0, 1, 0], [1, 0, 0]], np.float32))
    result = stored.compare(1e-4)
    assert (result.sampled, result.identical, result.problems) == (1, 1, ())


def test_only_the_first_problems_are_named(tmp_path):
    add_wave(tmp_path / "out", "00000", make_batch({key: [1, 0, 0] for key in KEYS[:50]}))
    problems = StoredSample(str(tmp_path / "out"), Sample(1)).compare(1e-4).problems
    assert (len(problems), problems[-1]) == (21, "and 30 more keys")
