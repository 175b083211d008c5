"""Batches of labelled images: shuffled, cropped and mirrored for training, or as they are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.finetune.data import LabelledImages

_MIN_CROP_AREA = 0.5
_MAX_CROP_ASPECT = 4 / 3
_PREFETCHED_BATCHES = 2


@dataclass(frozen=True, eq=False)
class Batch:
    """A few images on their way into the network.

    Attributes:
      images: float32 [N, height, width, 3], RGB in [0, 1].
      labels: int32 [N], indices of classes.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int32]


def steps_per_epoch(images: LabelledImages, batch_size: int) -> int:
    """Returns the number of full batches; those images that are left over come into another epoch's."""
    return len(images) // min(batch_size, len(images))


def training_batches(
    images: LabelledImages, batch_size: int, image_size: tuple[int, int], *, seed: int, epoch: int, first_step: int = 0
) -> Iterator[Batch]:
    """Yields the full batches of one epoch: shuffled, cropped at random and every other image mirrored.

    A step's batch depends on nothing but the arguments, so that training can go on in the middle of an epoch.

    Args:
      images: the training set.
      batch_size: images in a batch.
      image_size: height and width of the batches' images.
      seed: of all that is random.
      epoch: counts from 0.
      first_step: where in the epoch to begin.
    """
    size = min(batch_size, len(images))
    order = np.random.default_rng((seed, epoch)).permutation(len(images))

    def make(step: int) -> Batch:
        random = np.random.default_rng((seed, epoch, step))
        rows = order[step * size : (step + 1) * size]
        return Batch(np.stack([augment(images.pixels[row], image_size, random) for row in rows]), images.labels[rows])

    # While the network works on a batch, the next ones are made.
    with ThreadPoolExecutor(1, thread_name_prefix="augment") as pool:
        steps = iter(range(first_step, steps_per_epoch(images, batch_size)))
        waiting = deque(pool.submit(make, step) for step in islice(steps, _PREFETCHED_BATCHES))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(make, step) for step in islice(steps, 1))
            yield batch


def plain_batches(
    images: LabelledImages, batch_size: int, image_size: tuple[int, int], rows: NDArray[np.intp] | None = None
) -> Iterator[Batch]:
    """Yields images as they are, resized if need be; the last batch may be smaller.

    Args:
      images: the set.
      batch_size: images in a batch.
      image_size: height and width of the batches' images.
      rows: indices of the images to take; all by default.
    """
    rows = np.arange(len(images)) if rows is None else rows
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        yield Batch(np.stack([_resize(images.pixels[row], image_size) for row in chosen]), images.labels[chosen])


def augment(pixels: NDArray[np.uint8], image_size: tuple[int, int], random: np.random.Generator) -> NDArray[np.float32]:
    """Returns a random crop of an image, mirrored or not: float32 [*image_size, 3] in [0, 1].

    The crop has at least half of the image's area, and its aspect is at most a third off.

    Args:
      pixels: uint8 [height, width, 3].
      image_size: height and width of the result.
      random: what decides.
    """
    height, width = pixels.shape[:2]
    area = random.uniform(_MIN_CROP_AREA, 1)
    aspect = math.exp(random.uniform(-1, 1) * math.log(_MAX_CROP_ASPECT))
    crop_height = min(height, max(1, round(height * math.sqrt(area / aspect))))
    crop_width = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top, left = random.integers(height - crop_height + 1), random.integers(width - crop_width + 1)
    crop = pixels[top : top + crop_height, left : left + crop_width]
    return _resize(crop[:, ::-1] if random.random() < 0.5 else crop, image_size)


def _resize(pixels: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns an image as float32 [*image_size, 3] in [0, 1]."""
    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[:2] != image_size:
        pixels = cv2.resize(pixels, image_size[::-1], interpolation=cv2.INTER_LINEAR)
    image: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    return image
