"""Networks of Keras, exported by Keras itself: runs give the vectors of Keras on its own pixels."""

import numpy as np
import pytest

from pipeline.core.quiet import import_tensorflow
from pipeline.dataset.metadata import read_spec
from pipeline.engines.parity import relative_difference
from tests.datasets import embed, read_vectors

pytestmark = pytest.mark.slow

SIZE = 96


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_vectors_are_those_of_keras(name, fifty_photos, out, tmp_path):
    """Both networks scale levels from 0 to 255 themselves, which the run finds out."""
    import_tensorflow()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)
    model = network(weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3))
    model.export(tmp_path / "module", verbose=False)
    images = []
    for path in sorted(fifty_photos.iterdir()):
        decoded = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE")
        images.append(tf.image.resize(tf.cast(decoded, tf.float32), [SIZE, SIZE]))
    expected = np.asarray(model(tf.stack(images), training=False))

    for engine in ("openvino", "tensorflow"):
        assert embed(fifty_photos, out / engine, tmp_path / "module", engine=engine).embedded == len(images)
        assert read_spec(str(out / engine)).preprocessing.value_range == (0.0, 255.0)
        vectors = np.stack([np.frombuffer(vector, np.float32) for vector in read_vectors(out / engine).values()])
        assert relative_difference(vectors, expected) < 1e-4
