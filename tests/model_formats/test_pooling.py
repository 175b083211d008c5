import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.model_formats.pooling import pool

TOKENS = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("shape", [(2, 12), (2, 12, 1, 1), (2, 1, 1, 12), (2, 1, 12)])
def test_axes_of_length_1_are_dropped(shape):
    values = TOKENS.reshape(2, 12)
    np.testing.assert_array_equal(pool(values.reshape(shape), None, name="out"), values)


def test_tokens():
    np.testing.assert_array_equal(pool(TOKENS, "cls", name="out"), TOKENS[:, 0])
    np.testing.assert_allclose(pool(TOKENS, "mean", name="out"), TOKENS.mean(axis=1))
    np.testing.assert_array_equal(pool(TOKENS, "flatten", name="out"), TOKENS.reshape(2, 12))


def test_places():
    places = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    np.testing.assert_allclose(pool(places, "mean", name="out"), places.mean(axis=(1, 2)))
    np.testing.assert_allclose(pool(places, "mean", name="out", channels_first=True), places.mean(axis=(2, 3)))
    with pytest.raises(ModuleError, match=r"--pooling=cls does not fit output 'out' of shape \[2, 2, 3, 4\]"):
        pool(places, "cls", name="out")


def test_without_the_flag_tokens_are_refused():
    with pytest.raises(ModuleError, match=r"output 'out' has shape \[2,3,4\]; .*--pooling=mean, cls or flatten"):
        pool(TOKENS, None, name="out")
