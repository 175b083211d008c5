"""Resamples images: the part that comes to lie in the input, with and without antialiasing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.core.settings.preprocess import Interpolation
from pipeline.images.antialias import antialiased
from pipeline.images.keys_kernel import keys_kernel
from pipeline.images.resize import gather, resize_levels
from pipeline.images.transform import Placement, Span

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_TABLE_SIZE = 1024


def resample(
    pixels: Pixels, place: Placement, interpolation: Interpolation, *, antialias: bool
) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Resizes an image, and computes only the part that is in the input.

    With antialiasing, the result is that of Pillow's `Image.resize`, up to one level. Without, it is that of
    `tf.image.resize(antialias=False)`, up to rounding; `bicubic` may leave the range of the levels, as there.

    Args:
      pixels: the image, uint8 [h, w, 3].
      place: the sizes of the resize and of the part.
      interpolation: the kernel.
      antialias: whether the kernel grows with the reduction.

    Returns:
      Levels [rows, columns, 3]: uint8 with antialiasing, float32 without.
    """
    rows, columns = place.rows, place.columns
    if antialias:
        return antialiased(pixels, place, interpolation)
    if interpolation == "bicubic":
        if rows.length > pixels.shape[0]:  # else a thin image would be repeated at its whole length
            return _cubic(_cubic(pixels, columns, axis=1), rows, axis=0)
        return _cubic(_cubic(pixels, rows, axis=0), columns, axis=1)
    if rows.is_whole and columns.is_whole:
        levels = resize_levels(pixels, rows.resized, columns.resized)
    else:
        levels = gather(pixels, rows.resized, columns.resized, rows.part, columns.part)
    return np.minimum(levels, np.float32(255), out=levels)  # The sum of two weights may round to just above 1.


def _cubic(values: npt.NDArray[Any], span: Span, *, axis: int) -> npt.NDArray[np.float32]:
    """Returns the part of an image that was resized along one axis, without antialiasing; float32."""
    places, weights = _cubic_neighbours(values.shape[axis], span.resized, span.first, span.first + span.length)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    terms = (values.take(places[:, tap], axis=axis) * weights[:, tap].reshape(shape) for tap in range(4))
    total: npt.NDArray[np.float32] = next(terms)
    for term in terms:
        total += term
    return total


@lru_cache(maxsize=64)
def _cubic_neighbours(
    source: int, target: int, first: int, stop: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Returns the four neighbours in `source` of the places `first` to `stop` of `target`, and their weights; [N, 4].

    As `tf.image.resize(method="bicubic", antialias=False)`: half-pixel centres in float32, Keys' kernel at multiples
    of 1/1024, and no weight for neighbours outside of the image.
    """
    half = np.float32(0.5)
    place = (np.arange(first, stop, dtype=np.float32) + half) * (np.float32(source) / np.float32(target)) - half
    floor = np.floor(place)
    fraction = np.rint((place - floor) * _TABLE_SIZE)[:, None] / _TABLE_SIZE
    taps = np.arange(-1, 3)
    neighbours = floor.astype(np.intp)[:, None] + taps
    weights = keys_kernel(np.abs(taps - fraction.astype(np.float64)))
    inside = (neighbours >= 0) & (neighbours < source)
    weights = np.where(inside, weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=weights, where=total != 0)
    return neighbours.clip(0, source - 1), weights.astype(np.float32)
