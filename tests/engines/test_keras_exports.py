"""Networks of Keras, exported by Keras itself: both engines compute what Keras does."""

import numpy as np
import pytest

from pipeline.core.quiet import import_tensorflow
from pipeline.engines.parity import probe_images, relative_difference
from tests.engines.conftest import function_of

pytestmark = pytest.mark.slow

SIZE = 96


@pytest.fixture(scope="module", params=["MobileNetV3Small", "EfficientNetB0"])
def exported(request, tmp_path_factory):
    """The directory of an export, and what Keras computes for the probe images."""
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, request.param)
    model = network(weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3))
    directory = tmp_path_factory.mktemp("keras") / request.param
    model.export(directory, verbose=False)
    return directory, np.asarray(model(probe_images(SIZE, SIZE), training=False))


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_vectors_are_those_of_keras(name, exported):
    directory, expected = exported
    engine = function_of(directory, name).load()
    images = probe_images(SIZE, SIZE)
    vectors = np.concatenate([engine.infer(images[i : i + 1]) for i in range(len(images))])
    assert relative_difference(vectors, expected) < 1e-4
