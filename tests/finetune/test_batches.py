import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.finetune.batches import augment, plain_batches, steps_per_epoch, training_batches
from pipeline.finetune.data import LabelledImages


def make_images(count, height=20, width=16):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, height, width, 3), np.uint8)
    return LabelledImages(pixels, np.arange(count, dtype=np.int32), "digest")


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(10, 4, 2), (10, 5, 2), (3, 8, 1)])
def test_an_epoch_has_full_batches_of_different_images(count, batch_size, steps):
    images = make_images(count)
    batches = list(training_batches(images, batch_size, (8, 8), seed=0, epoch=0))
    assert len(batches) == steps == steps_per_epoch(images, batch_size)
    labels = np.concatenate([batch.labels for batch in batches])
    assert len(set(labels)) == len(labels) == steps * min(batch_size, count)
    assert all(batch.images.shape == (min(batch_size, count), 8, 8, 3) for batch in batches)


def test_an_epoch_can_be_entered_in_its_middle():
    images = make_images(12)
    whole = list(training_batches(images, 3, (8, 8), seed=5, epoch=2))
    rest = list(training_batches(images, 3, (8, 8), seed=5, epoch=2, first_step=2))
    assert len(rest) == 2
    for one, other in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    other_epoch = next(training_batches(images, 3, (8, 8), seed=5, epoch=3))
    assert not np.array_equal(whole[0].images, other_epoch.images)


def test_plain_batches_take_every_image_as_it_is():
    images = make_images(5, 8, 8)
    batches = list(plain_batches(images, 2, (8, 8)))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(
        np.rint(np.concatenate([batch.images for batch in batches]) * 255).astype(np.uint8), images.pixels
    )
    chosen = list(plain_batches(images, 2, (8, 8), np.array([3, 1])))
    assert [batch.labels.tolist() for batch in chosen] == [[3, 1]]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_augmented_images_keep_size_and_range(height, width, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    image = augment(pixels, (9, 7), random)
    assert (image.shape, image.dtype) == ((9, 7, 3), np.float32)
    assert image.min() >= pixels.min() / 255 - 1e-6
    assert image.max() <= pixels.max() / 255 + 1e-6


def test_half_of_the_augmented_images_are_mirrored_and_crops_keep_half_of_the_area():
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (60, 60, 3))
    random = np.random.default_rng(0)
    images = [augment(ramp, (16, 16), random) for _ in range(400)]
    rises = [image[0, -1, 0] > image[0, 0, 0] for image in images]
    assert 160 < sum(rises) < 240
    widths = [abs(float(image[0, -1, 0] - image[0, 0, 0])) * 255 / 4 for image in images]
    assert 60 * np.sqrt(0.5 * 0.75) - 5 < min(widths) < 40 < 55 < max(widths) <= 60
