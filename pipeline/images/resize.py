"""Bilinear resizing, equal to `tf.image.resize(method="bilinear", antialias=False)` up to rounding."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels


def resize(pixels: Pixels, out: npt.NDArray[np.float32] | npt.NDArray[np.uint8]) -> None:
    """Resizes an image bilinearly, without antialiasing.

    Args:
      pixels: the image, uint8 [h, w, 3].
      out: where to write the result, [H, W, 3]: float32 in [0, 1], or uint8, which holds the same result
        times 255, rounded to the nearest level.
    """
    height, width, _ = out.shape
    resized = resize_levels(pixels, height, width)
    if out.dtype == np.uint8:
        np.rint(resized, out=resized)
        np.copyto(out, resized, casting="unsafe")
    else:
        np.multiply(resized, np.float32(1 / 255), out=out)
        np.minimum(out, np.float32(1), out=out)  # The sum of two weights may round to just above 1.


def resize_levels(pixels: Pixels, height: int, width: int) -> npt.NDArray[np.float32]:
    """Returns an image, resized like by `resize`: float32 [height, width, 3] in [0, 255], up to rounding."""
    # Both branches compute the same bilinear resize, up to rounding. OpenCV is faster for images up to a few times
    # the size of the result; for larger ones, gathering only the needed pixels is faster.
    if pixels.shape[0] <= 6 * height and pixels.shape[1] <= 6 * width:
        resized: npt.NDArray[np.float32] = cv2.resize(
            pixels.astype(np.float32, order="C"), (width, height), interpolation=cv2.INTER_LINEAR
        )
        return resized
    return gather(pixels, height, width)


def resize_in_calling_thread() -> None:
    """Disables the threads of OpenCV and of NumPy's matrix products in the whole process.

    For processes whose threads already occupy all cores: there, further threads only cost processor time. The pixels
    are the same.
    """
    cv2.setNumThreads(1)
    threadpool_limits(limits=1, user_api="blas")


def gather(
    pixels: Pixels, height: int, width: int, rows: slice = slice(None), columns: slice = slice(None)
) -> npt.NDArray[np.float32]:
    """Returns a part of `resize_levels(pixels, height, width)`, computed from the needed pixels only.

    Args:
      pixels: the image, uint8 [h, w, 3].
      height: of the whole resized image.
      width: of the whole resized image.
      rows: the part's rows.
      columns: the part's columns.
    """
    left, right, right_weight = _neighbours(pixels.shape[1], width, *columns.indices(width)[:2])
    top, bottom, bottom_weight = _neighbours(pixels.shape[0], height, *rows.indices(height)[:2])

    def across(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        lines = pixels.take(rows, axis=0)
        begin = lines.take(left, axis=1).astype(np.float32)
        return begin + (lines.take(right, axis=1) - begin) * right_weight[:, None]

    if pixels.shape[0] < len(top):  # else a thin image would be repeated at its whole length
        lines = across(np.arange(pixels.shape[0]))
        upper, lower = lines.take(top, axis=0), lines.take(bottom, axis=0)
    else:
        upper, lower = across(top), across(bottom)
    return upper + (lower - upper) * bottom_weight[:, None, None]


@lru_cache(maxsize=1024)
def _neighbours(
    source: int, target: int, first: int, stop: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Returns, for the places `first` to `stop` of `target`: the lower and upper neighbour, and the upper's weight.

    Half-pixel centres in float32, as in `tf.image.resize`.
    """
    half = np.float32(0.5)
    place = (np.arange(first, stop, dtype=np.float32) + half) * (np.float32(source) / np.float32(target)) - half
    floor = np.floor(place)
    lower = np.maximum(floor, 0).astype(np.intp)
    upper = np.minimum(np.ceil(place), source - 1).astype(np.intp)
    return lower, upper, place - floor
