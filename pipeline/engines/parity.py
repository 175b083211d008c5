"""The comparison of two engines: probe images, and the difference of the engines' vectors."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

PARITY_LIMIT = 1e-4
"""Largest relative difference of two engines' float32 vectors that counts as equal."""

REDUCED_PARITY_LIMIT = 2e-2
"""The same for networks of half or integer precision: frameworks round their intermediate values differently."""

_PROBES = 4


def probe_images(height: int, width: int) -> NDArray[np.float32]:
    """Returns a few fixed images with features of photos: shading, texture, edges and noise.

    Returns:
      float32 [4, height, width, 3], in [0, 1].
    """
    index, y, x, channel = np.meshgrid(
        np.arange(_PROBES), np.arange(height) / height, np.arange(width) / width, np.arange(3), indexing="ij"
    )
    shading = np.sin(2.1 * x + 3.3 * y * (index + 1) + 0.7 * channel)
    texture = np.sin(40 * x + 7 * index * y + channel) * np.sin(31 * y - 5 * x)
    edges = np.where(np.sin(9 * x * (index + 1) - 6 * y) > 0.3, 1.0, -1.0)
    noise = np.sin(12_345.678 * np.sin(78.233 * x + 12.9898 * y + index + 37.719 * channel))
    images: NDArray[np.float32] = (0.5 + 0.25 * shading + 0.1 * texture + 0.2 * edges + 0.05 * noise).astype(np.float32)
    return images.clip(0, 1)


def relative_difference(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Returns the largest L2 norm of a row's difference, relative to the norm of the reference's row.

    The result is infinite if a value is not finite, or if only the reference's row is zero.

    Args:
      vectors: float32 [N, D].
      reference: float32 [N, D].
    """
    difference = np.linalg.norm(vectors.astype(np.float64) - reference, axis=1)
    length = np.linalg.norm(reference.astype(np.float64), axis=1)
    if not np.isfinite(difference).all():
        return float("inf")
    relative = np.divide(difference, length, out=np.where(difference > 0, np.inf, 0.0), where=length > 0)
    return float(relative.max())


def encoded_probes(height: int, width: int) -> tuple[bytes, ...]:
    """Returns the probe images as JPEG files that are a quarter larger, for the way from encoded bytes to vectors."""
    from PIL import Image

    images = []
    for pixels in probe_images(height * 5 // 4 + 1, width * 5 // 4 + 1):
        stream = io.BytesIO()
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        images.append(stream.getvalue())
    return tuple(images)


def plain_pixels(height: int, width: int) -> NDArray[np.float32]:
    """Returns `encoded_probes` as the plain preprocessing must feed them to a network, computed independently of it.

    The decoder is Pillow's, and the resize a formula: bilinear, with half-pixel centres and no antialiasing, as
    `tf.image.resize` defines it.

    Returns:
      float32 [4, height, width, 3], in [0, 1].
    """
    from PIL import Image

    images = []
    for data in encoded_probes(height, width):
        pixels = np.asarray(Image.open(io.BytesIO(data)), np.float64) / 255
        for axis, length in enumerate((height, width)):
            centres = (np.arange(length) + 0.5) * pixels.shape[axis] / length - 0.5
            first = np.floor(centres).astype(int)
            part = (centres - first).reshape([-1 if index == axis else 1 for index in range(3)])
            last = pixels.shape[axis] - 1
            above, below = (pixels.take(np.clip(first + step, 0, last), axis) for step in (0, 1))
            pixels = above + part * (below - above)
        images.append(pixels)
    return np.stack(images).astype(np.float32)
