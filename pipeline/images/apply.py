"""Applies an `ImageTransform` to decoded pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.images.resample import resample
from pipeline.images.resize import resize
from pipeline.images.transform import ImageTransform

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_HUB = ImageTransform()


def apply_transform(
    pixels: Pixels, transform: ImageTransform, out: npt.NDArray[np.float32] | npt.NDArray[np.uint8]
) -> None:
    """Writes the network's input for an image.

    Args:
      pixels: the image, RGB, uint8 [h, w, 3].
      transform: the transform.
      out: where to write the result, [H, W, 3], contiguous: float32; or uint8, for a transform that keeps levels,
        which holds levels from 0 to 255.

    Raises:
      ValueError: `out` is uint8, and the transform does not keep levels.
    """
    if transform == _HUB:
        resize(pixels, out)
        return
    if out.dtype == np.uint8 and not transform.keeps_levels:
        raise ValueError(f"uint8 input cannot hold {transform.describe()}; expected a range of [0, 1] or [0, 255]")
    height, width, _ = out.shape
    place = transform.place((pixels.shape[0], pixels.shape[1]), height, width)
    levels = resample(pixels, place, transform.interpolation, antialias=transform.antialias)
    rows, columns = place.rows, place.columns
    if levels.shape == out.shape:
        _write(levels, transform, out)
        return
    canvas = np.empty(out.shape, levels.dtype)
    canvas[:] = transform.fill
    canvas[rows.position : rows.position + rows.length, columns.position : columns.position + columns.length] = levels
    _write(canvas, transform, out)


def _write(levels: npt.NDArray[Any], transform: ImageTransform, out: npt.NDArray[Any]) -> None:
    """Writes the values of levels, uint8 or float32 [H, W, 3], RGB, to an array of the same shape."""
    if transform.channels == "bgr":
        levels = np.ascontiguousarray(levels[:, :, ::-1])
    if out.dtype == np.uint8:
        np.copyto(out, np.rint(levels).clip(0, 255), casting="unsafe")
    elif levels.dtype == np.uint8:
        cv2.LUT(levels, _table(transform), dst=out)
    else:
        # One long row for NumPy: its loops over three channels are slow.
        scale, offset = _row(transform, levels.shape[1])
        rows = out.reshape(len(out), -1)
        np.multiply(levels.reshape(len(out), -1), scale, out=rows)
        np.add(rows, offset, out=rows)


@lru_cache(maxsize=16)
def _table(transform: ImageTransform) -> npt.NDArray[np.float32]:
    """Returns the value of each level of each channel, float32 [1, 256, 3]."""
    levels = np.arange(256, dtype=np.float64)[None, :, None]
    values = levels * np.asarray(transform.scale) + np.asarray(transform.offset)
    table: npt.NDArray[np.float32] = values.astype(np.float32)
    return table


@lru_cache(maxsize=16)
def _row(transform: ImageTransform, width: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the scales and the offsets of a row of pixels, float32 [3 * width] each."""
    scale, offset = (np.asarray(item, np.float32) for item in (transform.scale, transform.offset))
    return np.tile(scale, width), np.tile(offset, width)
