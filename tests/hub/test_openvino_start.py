"""The detective on ONNX models and OpenVINO IR of which the right answer is known."""

import functools

import cv2
import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.detective import detect_transform
from pipeline.hub.resolve import resolve_module
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.signatures import choose_signature
from tests.images import photos
from tests.model_formats.models import CNN, NETWORK_SIZE, network_weights, write_ir, write_network

MEAN, STD = (np.float32(values).reshape(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@functools.cache
def training_levels():
    images = np.stack([cv2.resize(image, (NETWORK_SIZE, NETWORK_SIZE)) for image in photos.photos()[:60]])
    return images.astype(np.float32)


def write_trained(path, preset, **options):
    """Writes a network whose batch statistics are those of transformed photos."""
    transform = PRESETS.load(preset)
    levels = training_levels()[..., ::-1] if transform.channels == "bgr" else training_levels()
    values = levels * np.float32(transform.scale) + np.float32(transform.offset)
    weights, bias = network_weights()
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3), axis=(1, 2))[:, ::2, ::2]
    outputs = np.einsum("nhwcij,ocij->nhwo", windows, weights, optimize=True) + bias
    return write_network(path, statistics=(outputs.mean(axis=(0, 1, 2)), outputs.var(axis=(0, 1, 2))), **options)


@pytest.fixture(scope="module")
def images():
    """Encoded photos that no network was trained with, and what is no image."""
    encoded = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in photos.photos()[60:80]]
    return [b"no image", *encoded]


def detect(path, images, *, is_resize_known=True):
    module = resolve_module(str(path))
    return detect_transform(module, choose_signature(module), images, is_resize_known=is_resize_known)


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        ([("Div", 255)], "raw255"),
        ([("Mul", 1 / 127.5), ("Sub", 1)], "raw255"),
        ([("Sub", 255 * MEAN), ("Div", 255 * STD)], "raw255"),
        ([("Sub", MEAN), ("Div", STD)], "hub"),
        ([("Mul", 0.5), ("Add", 0.5)], "keras_tf"),
    ],
)
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_constants_at_the_input(steps, answer, kind, tmp_path):
    path = write_network(tmp_path / "model.onnx", steps=steps)
    if kind == "xml":
        path = write_ir(tmp_path / "ir" / "model.xml", path)
    found = detect(path, ())
    assert found.transform == PRESETS.load(answer)
    assert found.source.startswith(f"preset {answer}: the network scales its input from ")


@pytest.mark.parametrize("answer", ["hub", "keras_tf", "raw255", "keras_torch", "keras_caffe"])
@pytest.mark.parametrize("batch", ["batch", 5])
def test_statistics_of_the_first_batch_normalisation(answer, batch, images, tmp_path):
    path = write_trained(tmp_path / "model.onnx", answer, batch=batch)
    found = detect(path, images)
    assert found.transform == PRESETS.load(answer)
    assert "fits the statistics of the first batch normalisation best" in found.source
    ir = write_ir(tmp_path / "ir" / "model.xml", path)
    assert detect(ir, images).transform == found.transform


def test_a_network_without_evidence_is_refused(images):
    """With how its vectors differ under each range, from which nothing follows."""
    message = (
        r"module .*small_cnn\.onnx does not say how its images are scaled, and its network does not show it: it has "
        r"neither scaling constants at its input nor a batch normalisation after its first layer; the vectors of 16 "
        r"images differ by 0\.\d+ under hub, 0\.\d+ under keras_tf, 0\.\d+ under raw255 \(relative L2\); say "
        r"--preprocess=hub\|keras_tf\|"
    )
    with pytest.raises(ModuleError, match=message):
        detect(CNN, images)
