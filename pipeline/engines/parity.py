"""The comparison of two engines: probe images, and the difference of the engines' vectors."""

from __future__ import annotations

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
