import numpy as np
import pytest

from pipeline.engines.parity import probe_images, relative_difference


def test_probe_images_are_in_range_and_always_the_same():
    images = probe_images(48, 64)
    assert (images.shape, images.dtype) == ((4, 48, 64, 3), np.float32)
    assert 0 <= images.min() < 0.05
    assert 0.95 < images.max() <= 1
    np.testing.assert_array_equal(images, probe_images(48, 64))


def test_probe_images_are_all_different_and_in_colour():
    images = probe_images(32, 32)
    for i in range(4):
        assert np.abs(images[i, ..., 0] - images[i, ..., 1]).mean() > 0.02
        for j in range(i):
            assert np.abs(images[i] - images[j]).mean() > 0.1


def test_difference_is_that_of_the_worst_row_relative_to_the_reference():
    reference = np.array([[3, 4], [0, 10]], np.float32)
    vectors = np.array([[3, 4.5], [0, 10.5]], np.float32)
    assert relative_difference(vectors, reference) == pytest.approx(0.1)
    assert relative_difference(reference, reference) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_differ_without_bound(value):
    assert relative_difference(np.array([[1, value]], np.float32), np.ones((1, 2), np.float32)) == np.inf


def test_a_zero_reference_is_matched_by_zeros_only():
    zero = np.zeros((1, 2), np.float32)
    assert relative_difference(zero, zero) == 0
    assert relative_difference(zero + 1, zero) == np.inf
