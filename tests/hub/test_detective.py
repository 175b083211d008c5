"""The detective on exports of which the right answer is known."""

import contextlib

import cv2
import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.detective import detect_transform, noise_photos
from pipeline.hub.preprocess import declared_transform
from pipeline.hub.resolve import resolve_module
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import choose_signature
from tests.images import photos

pytestmark = pytest.mark.slow

SIZE = 64


def keras_application(name):
    def make():
        import keras

        return getattr(keras.applications, name)(
            weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3)
        )

    return make


def network(*first_layers, normalizes=True):
    """Returns a function that makes a small network after the layers that the first functions make."""

    def make():
        import keras

        keras.utils.set_random_seed(0)
        layers = [keras.Input((SIZE, SIZE, 3)), *(layer(keras) for layer in first_layers)]
        layers += [keras.layers.Conv2D(16, 3, strides=2, use_bias=not normalizes)]
        layers += [keras.layers.BatchNormalization(momentum=0.8)] if normalizes else []
        layers += [keras.layers.ReLU(), keras.layers.Conv2D(16, 3), keras.layers.GlobalAveragePooling2D()]
        return keras.Sequential(layers)

    return make


def trained(preset, **options):
    """Returns a function that makes a small network whose batch statistics are those of transformed photos."""

    def make():
        model = network(**options)()
        transform = PRESETS.load(preset)
        images = np.stack([cv2.resize(image, (SIZE, SIZE)) for image in photos.photos()[:60]]).astype(np.float32)
        ordered = images[..., ::-1] if transform.channels == "bgr" else images
        values = ordered * np.float32(transform.scale) + np.float32(transform.offset)
        rng = np.random.default_rng(0)
        for _ in range(30):
            model(values[rng.integers(0, len(values), 16)], training=True)
        return model

    return make


EXPORTS = {
    "MobileNetV3Small": (keras_application("MobileNetV3Small"), "raw255"),
    "EfficientNetB0": (keras_application("EfficientNetB0"), "raw255"),
    "EfficientNetV2B0": (keras_application("EfficientNetV2B0"), "raw255"),
    "levels to [0, 1]": (network(lambda keras: keras.layers.Rescaling(1 / 255)), "raw255"),
    "levels to [-1, 1]": (network(lambda keras: keras.layers.Rescaling(1 / 127.5, -1)), "raw255"),
    "levels to mean and std": (
        network(
            lambda keras: keras.layers.Normalization(
                mean=[123.675, 116.28, 103.53], variance=[58.395**2, 57.12**2, 57.375**2]
            )
        ),
        "raw255",
    ),
    "[0, 1] to [-1, 1]": (network(lambda keras: keras.layers.Rescaling(2, -1), normalizes=False), "hub"),
    "[0, 1] to mean and std": (
        network(
            lambda keras: keras.layers.Normalization(
                mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2]
            )
        ),
        "hub",
    ),
    "[-1, 1] to [0, 1]": (network(lambda keras: keras.layers.Rescaling(0.5, 0.5)), "keras_tf"),
    **{f"trained for {name}": (trained(name), name) for name in ("hub", "keras_tf", "raw255")},
    "trained for keras_torch": (trained("keras_torch"), "keras_torch"),
    "trained for keras_caffe": (trained("keras_caffe"), "keras_caffe"),
    # Nothing tells how these are fed: there is no number in them that a training would have left.
    "MobileNetV2": (keras_application("MobileNetV2"), None),
    "no batch normalisation": (trained("keras_tf", normalizes=False), None),
}


@pytest.fixture(scope="module")
def images():
    """Encoded photos that no network was trained with, and what is no image."""
    encoded = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in photos.photos()[60:80]]
    return [b"no image", *encoded]


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_gets_what_it_was_made_for_or_is_refused(name, images, tmp_path):
    make, answer = EXPORTS[name]
    make().export(str(tmp_path), verbose=False)
    module = read_module(str(tmp_path))
    signature = choose_signature(module)
    assert declared_transform(module, signature) is None
    if answer is None:
        with pytest.raises(ModuleError, match=r"does not say how its images are scaled, and its network does not"):
            detect_transform(module, signature, images)
    else:
        found = detect_transform(module, signature, images)
        assert found.transform == PRESETS.load(answer)
        assert found.source.startswith(f"preset {answer}: ")


@pytest.mark.parametrize("answer", ["hub", "keras_tf", "raw255", "keras_torch", "keras_caffe"])
def test_images_unlike_those_of_the_training_lead_to_no_wrong_answer(answer, images, tmp_path):
    """Dark images, images of low contrast, and none, for which noise takes the place."""
    trained(answer)().export(str(tmp_path), verbose=False)
    module = read_module(str(tmp_path))
    pixels = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in images[1:]]
    for factor, shift in ((0.25, 0), (0.5, 60), (0.3, 180), (0, 0)):
        shifted = [
            cv2.imencode(".png", cv2.convertScaleAbs(image, None, factor, shift))[1].tobytes() for image in pixels
        ]
        with contextlib.suppress(ModuleError):
            found = detect_transform(module, choose_signature(module), shifted if factor else ())
            assert found.transform == PRESETS.load(answer), (factor, shift)


def test_a_fixed_number_of_images(images, tmp_path):
    """Statistics and vectors are computed in calls of that number."""
    import tensorflow as tf

    for answer in ("keras_tf", None):
        model = trained("keras_tf", normalizes=answer is not None)()
        function = tf.function(lambda images, model=model: {"y": model(images, training=False)}, autograph=False)
        module = tf.Module()
        module.model = model
        spec = tf.TensorSpec([5, SIZE, SIZE, 3], tf.float32, "x")
        tf.saved_model.save(module, str(tmp_path / str(answer)), signatures=function.get_concrete_function(spec))
        found = read_module(str(tmp_path / str(answer)))
        if answer:
            assert detect_transform(found, choose_signature(found), images).transform == PRESETS.load(answer)
        else:
            with pytest.raises(ModuleError, match=r"the vectors of 16 images differ by [\d.]+ under hub, "):
                detect_transform(found, choose_signature(found), images)


def test_the_built_in_family_declares_its_transform_and_shows_it(tmp_path):
    module = resolve_module("untrained:mobilenet_v2_035_96")
    found = declared_transform(module, choose_signature(module))
    assert (found.transform, found.source) == (PRESETS.load("hub"), "attachment image_module_info")
    assert detect_transform(module, choose_signature(module)).transform == PRESETS.load("hub")


def test_noise_has_the_statistics_of_photos():
    noise = noise_photos(48, 64)
    assert noise.shape == (16, 48, 64, 3)
    np.testing.assert_allclose(noise.mean(axis=(0, 1, 2)) / 255, [0.485, 0.456, 0.406], atol=0.03)
    assert 0.2 < (noise / 255).std() < 0.3
    assert np.abs(np.diff(noise, axis=2)).mean() < 0.7 * noise.std()  # neighbours are alike; 1.1 without the spectrum
    np.testing.assert_array_equal(noise, noise_photos(48, 64))
