"""Antialiased resampling, equal to Pillow's `Image.resize` up to one level.

Photos of usual sizes are resampled by products of small matrices, which takes a third to a half of Pillow's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.images.keys_kernel import keys_kernel
from pipeline.images.transform import Interpolation, Placement, Span

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

MAX_PIXELS = 1 << 20
"""Larger images go to Pillow: as float32, they would fill a worker's caches and memory."""
MAX_SIDE = 4096
_BLOCK = 8
"""Results of one product. More of them would multiply with more zeros; fewer would cost more calls."""
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
    turned = cv2.transpose(pixels).astype(np.float32).reshape(width, height * 3)
    narrow = _along(turned, columns, interpolation).reshape(columns.length, height, 3)
    turned = np.asarray(cv2.transpose(narrow)).reshape(height, columns.length * 3)
    levels: npt.NDArray[np.uint8] = _along(turned, rows, interpolation).astype(np.uint8)
    return levels.reshape(rows.length, columns.length, 3)


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


def _along(levels: npt.NDArray[np.float32], span: Span, interpolation: Interpolation) -> npt.NDArray[np.float32]:
    """Returns levels, float32 [source, M], resampled along the first axis: whole levels, float32 [length, M]."""
    out = np.empty((span.length, levels.shape[1]), np.float32)
    for block in _blocks(len(levels), span, interpolation):
        source = levels[block.first : block.first + block.weights.shape[1]]
        np.matmul(block.weights, source, out=out[block.start : block.start + len(block.weights)])
    np.rint(out, out=out)
    return np.clip(out, 0, 255, out=out)


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive results of a resampling.

    Attributes:
      start: the first result.
      first: the first source that has a weight.
      weights: float32 [results, sources].
    """

    start: int
    first: int
    weights: npt.NDArray[np.float32]


@lru_cache(maxsize=256)
def _blocks(source: int, span: Span, interpolation: Interpolation) -> tuple[_Block, ...]:
    """Returns the weights of `precompute_coeffs` in Pillow's `Resample.c`, in blocks."""
    scale = source / span.resized
    stretch = max(scale, 1.0)  # an enlarged image needs no antialiasing
    reach = _SUPPORT[interpolation] * stretch
    centres = (np.arange(span.first, span.first + span.length) + 0.5) * scale
    lower = np.maximum((centres - reach + 0.5).astype(np.intp), 0)
    upper = np.minimum((centres + reach + 0.5).astype(np.intp), source)
    blocks = []
    for start in range(0, span.length, _BLOCK):
        part = slice(start, start + _BLOCK)
        low, high = lower[part, None], upper[part, None]
        taps = np.arange(low[0, 0], high[-1, 0])
        distance = np.abs(taps + 0.5 - centres[part, None]) / stretch
        weights = np.maximum(1 - distance, 0) if interpolation == "bilinear" else keys_kernel(distance)
        weights = np.where((taps >= low) & (taps < high), weights, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        blocks.append(_Block(start, int(low[0, 0]), weights.astype(np.float32)))
    return tuple(blocks)
