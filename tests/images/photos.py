"""Images with features of photos, the same on every machine: they are made with whole numbers only."""

import functools
import hashlib

import numpy as np

ODD_SIZES = ((1, 1), (1, 2000), (2000, 1), (3, 5), (40, 30), (224, 224), (225, 223), (257, 256))
_SIZES = ((375, 500), (500, 333), (333, 500), (281, 211), (300, 300), (160, 240), (241, 180), (120, 97), (427, 320))
_COUNT = 100
_UNIT = 16


@functools.cache
def photos() -> tuple[np.ndarray, ...]:
    """100 images of various sizes, then one of each odd size; RGB uint8 [h, w, 3]."""
    sizes = [*(_SIZES[index % len(_SIZES)] for index in range(_COUNT)), *ODD_SIZES]
    return tuple(photo(height, width, seed) for seed, (height, width) in enumerate(sizes))


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Clouds of several scales, with edges, and grain: RGB uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.int64)
    for scale, weight in ((64, 10), (16, 4), (4, 2)):
        rows, columns = -(-height // scale) + 1, -(-width // scale) + 1
        grid = rng.integers(0, 256, (rows, columns, 3)) + rng.integers(0, 256, (rows, columns, 1))
        total += weight * _stretch(_stretch(grid, height, scale, 0), width, scale, 1)
    levels = total // 32
    for _ in range(6):
        (top, bottom), (left, right) = (sorted(rng.integers(0, side + 1, 2)) for side in (height, width))
        levels[top:bottom, left:right] = levels[top:bottom, left:right] // 2 + rng.integers(0, 128, 3)
    levels += rng.integers(-6, 7, levels.shape)
    return levels.clip(0, 255).astype(np.uint8)


def _stretch(grid: np.ndarray, size: int, scale: int, axis: int) -> np.ndarray:
    """Interpolates linearly along an axis, in steps of 1/16."""
    place = np.arange(size) * _UNIT // scale
    weight = (place % _UNIT).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    lower, upper = grid.take(place // _UNIT, axis), grid.take(place // _UNIT + 1, axis)
    return (lower * (_UNIT - weight) + upper * weight) // _UNIT


def digest() -> str:
    """SHA-256 of all images."""
    found = hashlib.sha256()
    for image in photos():
        found.update(image.tobytes())
    return found.hexdigest()


def sampled(size: tuple[int, int], count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of some pixels of an image of a size."""
    rng = np.random.default_rng(7)
    return rng.integers(0, size[0], count), rng.integers(0, size[1], count)
