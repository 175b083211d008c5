"""The transforms against the libraries that they stand for.

`make_transform_references.py` made the references of libraries that are no dependency.
"""

import dataclasses
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.images.apply import apply_transform
from pipeline.images.decoder import ImageDecoder
from pipeline.images.resize import resize
from pipeline.images.transform import ImageTransform, Placement, Span
from pipeline.images.transforms.files import read_transform
from pipeline.images.transforms.registry import PRESETS
from tests import image_samples as samples
from tests.images import photos
from tests.images.make_transform_references import CASES

REFERENCES = Path(__file__).parent / "transform_references.npz"


@pytest.fixture(scope="module")
def references():
    with np.load(REFERENCES) as arrays:
        assert arrays["digest"] == photos.digest()
        return dict(arrays)


def transformed(pixels, transform, size):
    out = np.full((*size, 3), np.nan, np.float32)
    apply_transform(pixels, transform, out)
    return out


def transform_of(name, tmp_path):
    content, size = CASES[name]
    if isinstance(content, str):
        return PRESETS.load(content), size
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    found = read_transform(str(path))
    assert found.image_size == size
    return found.transform, size


@pytest.mark.parametrize("name", CASES)
def test_a_preset_or_file_makes_the_pixels_of_its_library(name, references, tmp_path):
    transform, size = transform_of(name, tmp_path)
    rows, columns = photos.sampled(size)
    mean, std = np.float64(transform.mean), np.float64(transform.std)
    for index, image in enumerate(photos.photos()):
        if name == "timm_border" and max(image.shape) > 400 * min(image.shape[:2]):
            continue  # timm cannot do it
        values = transformed(image, transform, size)[rows, columns]
        difference = np.abs((values * std + mean) * 255 - references[f"{name}/levels"][index])
        assert difference.max() <= 2, (image.shape, difference.max())
        assert difference.mean() <= 1, image.shape
        if index == 0:
            close = np.abs(values - references[f"{name}/values"]) * std * 255
            assert close.max() <= 2


KERAS = {
    "keras_tf": ("mobilenet", "mobilenet_v2", "inception_v3", "xception", "nasnet", "resnet_v2"),
    "keras_torch": ("densenet",),
    "keras_caffe": ("resnet", "vgg16", "vgg19"),
    "raw255": ("mobilenet_v3", "efficientnet", "efficientnet_v2", "convnext"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "application"), [(name, item) for name, items in KERAS.items() for item in items])
def test_a_preset_of_keras_is_its_preprocess_input(preset, application):
    import keras
    import tensorflow as tf

    preprocess_input = getattr(keras.applications, application).preprocess_input
    transform = PRESETS.load(preset)
    low, high = transform.input_range
    for image in photos.photos():
        levels = tf.image.resize(tf.cast(image, tf.float32), (96, 128), method="bilinear", antialias=False).numpy()
        expected = preprocess_input(levels.copy())
        # On the scale where black and white are 0 and 1.
        scale = np.float32(transform.std) / np.float32(high - low)
        # The places between pixels, rounded to float32, are up to 2e-5 of a pixel apart.
        np.testing.assert_allclose(
            transformed(image, transform, (96, 128)) * scale, expected * scale, atol=2e-5, rtol=0, err_msg=image.shape
        )


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_both_kernels_are_those_of_tensorflow(interpolation, antialias):
    import tensorflow as tf

    transform = ImageTransform(interpolation=interpolation, antialias=antialias, input_range=(0, 255))
    for image in photos.photos():
        expected = tf.image.resize(image, (96, 128), method=interpolation, antialias=antialias).numpy()
        found = transformed(image, transform, (96, 128))
        if antialias:  # TensorFlow rounds no levels, and keeps those outside of their range
            difference = np.abs(found - expected.clip(0, 255))
            assert difference.mean() <= 1
            assert difference.max() <= 2
        else:
            np.testing.assert_allclose(found / 255, expected / 255, atol=2e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_matrices_and_pillow_resample_alike(interpolation, mode, monkeypatch):
    transform = ImageTransform(mode, 0.9, interpolation, True, input_range=(0, 255))
    chosen = [image for image in photos.photos()[::11] if max(image.shape) < 2000]
    by_matrices = [transformed(image, transform, (96, 80)) for image in chosen]
    monkeypatch.setattr("pipeline.images.antialias.MAX_PIXELS", 0)
    for image, found in zip(chosen, by_matrices, strict=True):
        difference = np.abs(transformed(image, transform, (96, 80)) - found)
        assert difference.max() <= 1
        assert difference.mean() < 0.01  # where a half was rounded


def test_the_default_is_the_resize_of_hub_modules():
    for image in photos.photos()[::7]:
        expected = np.empty((160, 160, 3), np.float32)
        resize(image, expected)
        assert transformed(image, ImageTransform(), (160, 160)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_without_antialiasing_a_part_is_that_of_the_whole(mode, interpolation):
    transform = ImageTransform(mode, 0.9, interpolation, input_range=(0, 255), fill=(9, 8, 7))
    for image in photos.photos()[::9]:
        rows, columns = (span for span in _spans(transform.place(image.shape[:2], 64, 96)))
        squash = ImageTransform(interpolation=interpolation, input_range=(0, 255))
        whole = transformed(image, squash, (rows.resized, columns.resized))
        expected = np.empty((64, 96, 3), np.float32)
        expected[:] = transform.fill
        expected[rows.position : rows.position + rows.length, columns.position : columns.position + columns.length] = (
            whole[rows.part, columns.part]
        )
        # OpenCV rounds the places between pixels differently.
        np.testing.assert_allclose(transformed(image, transform, (64, 96)), expected, atol=5e-3, rtol=0)


def _spans(place):
    return place.rows, place.columns


@pytest.mark.parametrize(
    ("transform", "source", "rows", "columns"),
    [
        (ImageTransform("squash"), (100, 50), (224, 0, 224, 0), (224, 0, 224, 0)),
        (ImageTransform("squash", 0.875), (100, 50), (256, 16, 224, 0), (256, 16, 224, 0)),
        (ImageTransform("crop"), (375, 500), (224, 0, 224, 0), (298, 37, 224, 0)),
        (ImageTransform("crop", margins="half_even"), (375, 503), (224, 0, 224, 0), (300, 38, 224, 0)),
        (ImageTransform("crop", margins="floor"), (375, 507), (224, 0, 224, 0), (302, 39, 224, 0)),
        (ImageTransform("crop", margins="half_even"), (227, 224), (227, 2, 224, 0), (224, 0, 224, 0)),
        (ImageTransform("crop", margins="floor"), (227, 224), (227, 1, 224, 0), (224, 0, 224, 0)),
        (ImageTransform("pad"), (375, 500), (168, 0, 168, 28), (224, 0, 224, 0)),
        (ImageTransform("pad"), (1, 2000), (1, 0, 1, 111), (224, 0, 224, 0)),
        (ImageTransform("crop"), (1, 2000), (224, 0, 224, 0), (448000, 223888, 224, 0)),
    ],
)
def test_where_an_image_comes_to_lie(transform, source, rows, columns):
    assert transform.place(source, 224, 224) == Placement(Span(*rows), Span(*columns))


def test_levels_for_a_uint8_input():
    image = photos.photos()[0]
    for transform in (PRESETS.load("raw255"), ImageTransform("crop", antialias=True, channels="bgr")):
        out = np.empty((64, 64, 3), np.uint8)
        apply_transform(image, transform, out)
        values = transformed(image, transform, (64, 64)) * (255 / transform.input_range[1])
        np.testing.assert_array_equal(out, np.rint(values))
    with pytest.raises(
        ValueError, match=r"^uint8 input cannot hold squash, bicubic with antialiasing, RGB in \[0, 1\]"
    ):
        apply_transform(image, PRESETS.load("siglip"), np.empty((64, 64, 3), np.uint8))


def test_bicubic_levels_for_a_uint8_input_stay_in_their_range():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    out = np.empty((16, 32, 3), np.uint8)
    apply_transform(image, ImageTransform(interpolation="bicubic"), out)
    assert (out[:, :12] <= 20).all()
    assert (out[:, 20:] >= 235).all()


def test_the_borders_of_a_padded_image_have_the_values_of_their_colour():
    white = np.full((50, 100, 3), 255, np.uint8)
    transform = ImageTransform("pad", channels="bgr", mean=(0.1, 0.2, 0.3), fill=(255, 0, 51))
    padded = transformed(white, transform, (64, 64))
    np.testing.assert_allclose(padded[0, 0], [0.2 - 0.1, 0 - 0.2, 1 - 0.3], atol=1e-6)
    np.testing.assert_allclose(padded[32, 32], [0.9, 0.8, 0.7], atol=1e-6)


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", photos.ODD_SIZES, ids=str)
def test_an_image_of_one_colour_keeps_it(mode, size):
    image = np.full((*size, 3), (10, 128, 250), np.uint8)
    for interpolation, antialias in (("bilinear", False), ("bicubic", False), ("bilinear", True), ("bicubic", True)):
        transform = ImageTransform(mode, 0.8, interpolation, antialias, input_range=(0, 255), fill=(10, 128, 250))
        found = transformed(image, transform, (32, 48))
        np.testing.assert_allclose(found, np.broadcast_to([10, 128, 250], found.shape), atol=1e-3)


def test_a_transform_is_a_value():
    for name in PRESETS.names:
        transform = PRESETS.load(name)
        assert pickle.loads(pickle.dumps(transform)) == transform
        assert hash(transform) == hash(dataclasses.replace(transform))


def test_a_transform_in_words():
    assert PRESETS.load("hub").describe() == "squash, bilinear, RGB in [0, 1]"
    assert PRESETS.load("keras_caffe").describe() == (
        "squash, bilinear, BGR in [0, 255] minus (103.939, 116.779, 123.68)"
    )
    assert PRESETS.load("imagenet").describe() == (
        "crop 0.875, bilinear with antialiasing, RGB in [0, 1] minus (0.485, 0.456, 0.406) divided by "
        "(0.229, 0.224, 0.225)"
    )


def test_fast_decoding_keeps_the_pixels_around_the_crop():
    image = photos.photo(1600, 1200, seed=0)
    data = samples.save(image, "JPEG", quality=95)
    transform = ImageTransform("crop", 0.5, antialias=True)
    exact = ImageDecoder(64, 64, transform=transform)(data)
    fast = ImageDecoder(64, 64, decode="fast", transform=transform)(data)
    assert 0 < np.abs(fast - exact).mean() < 0.02


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_is_cropped_away_of_a_thin_image_takes_no_memory(interpolation):
    thin = np.arange(3 * 50_000, dtype=np.uint32).astype(np.uint8).reshape(1, -1, 3)
    transform = ImageTransform(resize="crop", interpolation=interpolation)
    out = np.empty((64, 64, 3), np.float32)
    tracemalloc.start()
    try:
        apply_transform(thin, transform, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
