"""Runs with ONNX models, against ONNX Runtime on pixels that Pillow and TensorFlow compute."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.commands.run import main
from pipeline.core.quiet import import_tensorflow
from pipeline.dataset.metadata import read_spec
from pipeline.engines.parity import relative_difference
from tests.datasets import embed, read_vectors
from tests.image_samples import pixels, save
from tests.model_formats.models import CNN, VIT, runtime_vectors, write_ir

PHOTOS = 50
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def fifty_photos(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fifty photos")
    for index in range(PHOTOS):
        sides = {"height": 40 + 7 * index, "width": 300 - 5 * index}
        (directory / f"{index:02d}.jpg").write_bytes(save(pixels(seed=index, **sides), "JPEG"))
    return directory


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


def clip_pixels(photos, size):
    """The photos as CLIP's image processor prepares them with Pillow: float32 [N, 3, size, size]."""
    images = []
    for path in sorted(photos.iterdir()):
        image = Image.open(path).convert("RGB")
        shorter = min(image.size)
        image = image.resize([side * size // shorter for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - size) // 2 for side in image.size)
        levels = np.asarray(image.crop((left, top, left + size, top + size)), np.float64)
        images.append((levels / 255 - CLIP_MEAN) / CLIP_STD)
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.slow
def test_a_vision_transformer_with_the_configuration_of_clip(fifty_photos, out, tmp_path):
    assert embed(fifty_photos, out, VIT.parent, engine="auto").embedded == PHOTOS
    expected = runtime_vectors(VIT, clip_pixels(fifty_photos, 32), "image_embeds")
    # Pillow rounds to levels between its two passes; so a pixel may differ by a level.
    assert relative_difference(vectors_of(out), expected) < 5e-3
    preprocessing = read_spec(str(out)).preprocessing
    assert (preprocessing.resize_mode, preprocessing.interpolation, preprocessing.antialias) == (
        "crop",
        "bicubic",
        True,
    )

    path = shutil.copy(VIT, tmp_path / "vit.onnx")  # without the configuration beside it
    embed(fifty_photos, tmp_path / "plain", path, engine="auto", preprocess="hub")
    expected = runtime_vectors(VIT, plain_pixels(fifty_photos, 32), "image_embeds")
    assert relative_difference(vectors_of(tmp_path / "plain"), expected) < 1e-4


def test_a_model_that_does_not_say_its_preprocessing_is_refused(photos, out, capsys):
    assert main([f"--input={photos}", f"--module={CNN}", f"--output={out}"]) == 2
    assert "does not say how its images are scaled; say --preprocess=" in capsys.readouterr().err


def test_tensorflow_is_refused_in_one_line(photos, out, capsys):
    code = main([f"--input={photos}", f"--module={CNN}", f"--output={out}", "--preprocess=hub", "--engine=tensorflow"])
    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --engine=tensorflow cannot compute {CNN}, which is an ONNX model; use --engine=openvino"
    )


def test_a_later_run_goes_on_with_the_same_file(photos, out):
    assert embed(photos, out, CNN, engine="auto", preprocess="hub").embedded == 5
    (photos / "new.jpg").write_bytes((photos / "000.jpg").read_bytes())
    summary = embed(photos, out, CNN, engine="auto", preprocess="hub")
    assert (summary.embedded, summary.skipped) == (1, 5)
