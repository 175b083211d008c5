"""Antialiased resampling, equal to Pillow's `Image.resize` up to one level.

Photos of usual sizes are resampled by products of small matrices, which takes a quarter to a third of Pillow's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.settings.preprocess import Interpolation
from pipeline.images.keys_kernel import keys_kernel
from pipeline.images.transform import Placement, Span

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

MAX_PIXELS = 1 << 20
"""Larger images go to Pillow: as float32, they would fill a worker's caches and memory."""
MAX_SIDE = 4096
_RESULTS = 4
"""About how many results a window has. More of them would multiply with more zeros."""
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SUPPORT = {"bilinear": 1, "bicubic": 2}


def antialiased(pixels: Pixels, place: Placement, interpolation: Interpolation) -> npt.NDArray[np.uint8]:
    """Returns the part of a resized image that is in the input; uint8 [rows, columns, 3].

    As in Pillow, the columns are resampled first and rounded to levels, then the rows. The kernel reaches beyond the
    part, as if the whole image had been resized.

    Args:
      pixels: the image, uint8 [h, w, 3].
      place: the sizes of the resize and of the part.
      interpolation: the kernel.
    """
    height, width, _ = pixels.shape
    rows, columns = place.rows, place.columns
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        return _by_pillow(pixels, rows, columns, interpolation)
    across, down = _windows(width, columns, interpolation), _windows(height, rows, interpolation)
    part = pixels[down.first : down.stop, across.first : across.stop]
    turned = cv2.transpose(part).reshape(part.shape[1], -1)
    narrow = _along(turned, across).reshape(columns.length, part.shape[0], 3)
    turned = np.asarray(cv2.transpose(narrow)).reshape(part.shape[0], -1)
    return _along(turned, down).reshape(rows.length, columns.length, 3)


def _by_pillow(pixels: Pixels, rows: Span, columns: Span, interpolation: Interpolation) -> npt.NDArray[np.uint8]:
    left, right = _source_range(pixels.shape[1], columns)
    top, bottom = _source_range(pixels.shape[0], rows)
    resized = Image.fromarray(pixels).resize(
        (columns.length, rows.length), _FILTERS[interpolation], box=(left, top, right, bottom)
    )
    return np.asarray(resized)


def _source_range(source: int, span: Span) -> tuple[float, float]:
    """Returns where the part of an axis begins and ends in the source, in pixels."""
    return span.first * source / span.resized, min(source, (span.first + span.length) * source / span.resized)


@dataclass(frozen=True, eq=False)
class _Windows:
    """The weights of a resampling along one axis, as products over windows of the source at even distances.

    Attributes:
      first: the first source that has a weight.
      stop: the end of the sources that have a weight, exclusive.
      step: sources between the begins of two windows.
      weights: float32 [windows, results, sources of a window]; the windows with fewer results end with zeros.
      places: where the results stand among those of all windows, [length].
    """

    first: int
    stop: int
    step: int
    weights: npt.NDArray[np.float32]
    places: npt.NDArray[np.intp]


def _along(levels: npt.NDArray[np.uint8], windows: _Windows) -> npt.NDArray[np.uint8]:
    """Returns levels, uint8 [stop - first, M], resampled along the first axis: uint8 [length, M]."""
    count, results, size = windows.weights.shape
    used, width = levels.shape
    sources = np.empty(((count - 1) * windows.step + size, width), np.float32)
    sources[:used] = levels
    sources[used:] = 0
    strides = (windows.step * sources.strides[0], *sources.strides)
    # One product: threads that each call NumPy many times wait for Python's lock.
    out = np.matmul(windows.weights, np.ndarray((count, size, width), np.float32, sources, strides=strides))
    rounded = cv2.add(out.reshape(count * results, width), 0.0, dtype=cv2.CV_8U)  # half to even, between 0 and 255
    return np.asarray(rounded).take(windows.places, axis=0)


@lru_cache(maxsize=256)
def _windows(source: int, span: Span, interpolation: Interpolation) -> _Windows:
    """Returns the weights of `precompute_coeffs` in Pillow's `Resample.c`."""
    scale = source / span.resized
    stretch = max(scale, 1.0)  # an enlarged image needs no antialiasing
    reach = _SUPPORT[interpolation] * stretch
    centres = (np.arange(span.first, span.first + span.length) + 0.5) * scale
    lower = np.maximum((centres - reach + 0.5).astype(np.intp), 0)
    upper = np.minimum((centres + reach + 0.5).astype(np.intp), source)
    first = int(lower[0])
    step = max(1, round(_RESULTS * scale))
    window = (lower - first) // step
    begins = first + window * step
    place = np.arange(span.length) - np.searchsorted(window, window)
    weights = np.zeros((window[-1] + 1, place.max() + 1, (upper - begins).max()))
    taps = begins[:, None] + np.arange(weights.shape[2])
    distance = np.abs(taps + 0.5 - centres[:, None]) / stretch
    values = np.maximum(1 - distance, 0) if interpolation == "bilinear" else keys_kernel(distance)
    values = np.where((taps >= lower[:, None]) & (taps < upper[:, None]), values, 0)
    weights[window, place] = values / values.sum(axis=1, keepdims=True)
    places = window * weights.shape[1] + place
    return _Windows(first, int(upper[-1]), step, weights.astype(np.float32), places)
