"""Runs with modules that are fed in other ways than the usual one, against TensorFlow with its own preprocessing."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.config import RunConfig
from pipeline.core.errors import ModuleError, OutputError
from pipeline.core.quiet import import_tensorflow
from pipeline.dataset.metadata import read_spec
from pipeline.engines.parity import relative_difference
from pipeline.job.dry_run import preview
from tests.datasets import embed, read_vectors

PHOTOS = 50


def of_tensorflow(module: str, name: str, photos: Path) -> dict[bytes, np.ndarray]:
    """The vectors of a signature, one image at a time, decoded, resized and cast by TensorFlow."""
    import_tensorflow()
    import tensorflow as tf

    signature = tf.saved_model.load(module).signatures[name]
    found = {}
    for path in sorted(photos.iterdir()):
        image = tf.constant(path.read_bytes())
        if name == "uint8":
            decoded = tf.cast(tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"), tf.float32)
            image = tf.cast(tf.round(tf.image.resize(decoded, [32, 32])), tf.uint8)
        found[path.name.encode()] = signature(images=image[None])["default"].numpy()[0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), [("uint8", "openvino"), ("uint8", "tensorflow"), ("encoded", "auto")])
def test_vectors_are_those_of_tensorflow(name, engine, odd_module, fifty_photos, out):
    summary = embed(fifty_photos, out, odd_module, signature=name, engine=engine)
    assert (summary.embedded, summary.failed) == (PHOTOS, 0)
    expected = of_tensorflow(odd_module, name, fifty_photos)
    vectors = {key: np.frombuffer(vector, np.float32) for key, vector in read_vectors(out).items()}
    assert vectors.keys() == expected.keys()
    stacked = [np.stack([table[key] for key in sorted(expected)]) for table in (vectors, expected)]
    assert relative_difference(*stacked) < 1e-4


def test_the_pooling_is_part_of_the_space(odd_module, photos, out):
    embed(photos, out, odd_module, signature="tokens", pooling="mean")
    assert read_spec(str(out)).pooling == "mean"
    with pytest.raises(OutputError, match=r"pooling: mean, now cls"):
        embed(photos, out, odd_module, signature="tokens", pooling="cls")
    with pytest.raises(ModuleError, match=r"or say --pooling=mean, --pooling=cls or --pooling=flatten$"):
        embed(photos, out, odd_module, signature="tokens")


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_a_module_with_a_table_beside_its_output(engine, odd_module, photos, out):
    options = {"signature": "labels", "engine": engine}
    flags = {"input": str(photos), "output": str(out), "module": odd_module, "dry_run": True}
    assert preview(RunConfig.from_flags(**flags, **options)).sample_embedded == 5
    assert embed(photos, out, odd_module, **options).embedded == 5
