"""Runs with ONNX models, against ONNX Runtime on pixels that Pillow and TensorFlow compute."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.commands.run import main
from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow
from pipeline.dataset.metadata import read_spec
from pipeline.engines.parity import relative_difference
from pipeline.images.transforms.registry import PRESETS
from tests.datasets import embed, read_vectors
from tests.model_formats.models import CNN, VIT, runtime_vectors, write_ir, write_network

PHOTOS = 50
CONFIGURATION = json.loads((VIT.parent / "preprocessor_config.json").read_text())


def plain_pixels(photos, size):
    """The photos as TensorFlow decodes and resizes them: float32 [N, 3, size, size], in [0, 1]."""
    import_tensorflow()
    import tensorflow as tf

    images = []
    for path in sorted(photos.iterdir()):
        decoded = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE")
        images.append(tf.image.resize(tf.cast(decoded, tf.float32) / 255, [size, size]).numpy())
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def vectors_of(out):
    return np.stack([np.frombuffer(vector, np.float32) for vector in read_vectors(out).values()])


@pytest.mark.slow
def test_a_convolutional_network(fifty_photos, out, tmp_path):
    summary = embed(fifty_photos, out, CNN, engine="auto", preprocess="hub")
    assert (summary.embedded, summary.failed, summary.engine) == (PHOTOS, 0, "openvino")
    expected = runtime_vectors(CNN, plain_pixels(fifty_photos, 64))
    assert relative_difference(vectors_of(out), expected) < 1e-4
    certificate = read_spec(str(out)).certificate
    assert certificate.reference.startswith("onnxruntime ")
    assert certificate.difference < 1e-4

    ir = write_ir(tmp_path / "ir" / "cnn.xml", CNN)
    embed(fifty_photos, tmp_path / "ir vectors", ir, engine="auto", preprocess="hub")
    np.testing.assert_array_equal(vectors_of(tmp_path / "ir vectors"), vectors_of(out))


@pytest.mark.slow
def test_a_vision_transformer(fifty_photos, out, tmp_path):
    path = shutil.copy(VIT, tmp_path / "vit.onnx")  # without the configuration beside it
    assert embed(fifty_photos, out, path, engine="auto", preprocess="hub").embedded == PHOTOS
    expected = runtime_vectors(VIT, plain_pixels(fifty_photos, 32), "image_embeds")
    assert relative_difference(vectors_of(out), expected) < 1e-4


@pytest.mark.slow
def test_a_vision_transformer_with_its_configuration(fifty_photos, out):
    assert embed(fifty_photos, out, VIT.parent, engine="auto").embedded == PHOTOS
    assert read_spec(str(out)).preprocessing.interpolation == "bicubic"
    images = []
    for path in sorted(fifty_photos.iterdir()):
        with Image.open(path) as image:
            # As preprocessor_config.json says: the shorter side to 32 pixels, the centre, mean and standard deviation.
            scaled = [side * 32 // min(image.size) for side in image.size]
            left, top = ((side - 32) // 2 for side in scaled)
            resized = image.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
        levels = np.asarray(resized, np.float32) / 255
        mean, std = (np.array(CONFIGURATION[f"image_{name}"], np.float32) for name in ("mean", "std"))
        images.append(((levels - mean) / std).transpose(2, 0, 1))
    expected = runtime_vectors(VIT, np.stack(images), "image_embeds")
    difference = np.linalg.norm(vectors_of(out) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(difference) < 1e-4
    assert difference.max() < 2e-2  # resized pixels may differ by one level from Pillow's


def test_a_model_that_says_and_shows_nothing_is_refused(photos, out, capsys):
    assert main([f"--input={photos}", f"--module={CNN}", f"--output={out}"]) == 2
    assert re.search(
        r"does not say how its images are scaled, and its network does not show it: .*; the vectors of 5 images differ "
        r"by 0\.\d+ under hub, .* \(relative L2\); say --preprocess=hub\|",
        capsys.readouterr().err,
    )


def test_a_model_that_shows_its_values_needs_a_resize(photos, out, tmp_path, caplog):
    path = write_network(tmp_path / "model.onnx", steps=[("Div", 255)])
    message = (
        r"does not say how its images are resized; its network shows their values \(preset raw255: the network scales "
        r"its input from \[0, 255\] itself\); say --resize=squash or --resize=crop, or --preprocess, as the network was"
    )
    with pytest.raises(ModuleError, match=message):
        embed(photos, out, path, engine="auto")
    embed(photos, out, path, engine="auto", resize="squash")
    assert read_spec(str(out)).preprocessing.transform == PRESETS.load("raw255")
    assert "squash, bilinear, RGB in [0, 255] (preset raw255: the network scales its input from" in caplog.text


def test_tensorflow_is_refused_in_one_line(photos, out, capsys):
    code = main([f"--input={photos}", f"--module={CNN}", f"--output={out}", "--engine=tensorflow", "--preprocess=hub"])
    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --engine=tensorflow cannot compute {CNN}, which is an ONNX model; use --engine=openvino"
    )


def test_a_later_run_goes_on_with_the_same_file(photos, out):
    assert embed(photos, out, CNN, engine="auto", preprocess="hub").embedded == 5
    (photos / "new.jpg").write_bytes((photos / "000.jpg").read_bytes())
    summary = embed(photos, out, CNN, engine="auto", preprocess="hub")
    assert (summary.embedded, summary.skipped) == (1, 5)
