"""Batches of the one size that an engine computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill_up(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Returns `size` images: the given ones, and black ones after them; encoded images are followed by the first one.

    Args:
      images: [N, height, width, 3], or N objects; returned as it is if N is `size`.
      size: at least N.
    """
    if len(images) == size:
        return images
    filled: NDArray[Any] = np.zeros((size, *images.shape[1:]), images.dtype)
    if images.dtype == object:
        filled[:] = images[0]
    filled[: len(images)] = images
    return filled


def in_batches(
    infer: Callable[[NDArray[Any]], NDArray[np.float32]], images: NDArray[Any], size: int
) -> NDArray[np.float32]:
    """Returns the vectors of images, from calls of exactly `size` images."""
    vectors = [infer(fill_up(images[start : start + size], size)) for start in range(0, len(images), size)]
    return np.concatenate(vectors)[: len(images)]
