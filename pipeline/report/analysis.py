"""What the vectors of a sample show: norms, nearest neighbours, duplicates and outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 12
"""Nearest neighbours of each vector."""
NEAR_DUPLICATE = 0.97
"""Cosine similarity from which two different vectors count as near-duplicates."""
_CHUNK_ROWS = 256


@dataclass(frozen=True)
class Pair:
    """Two rows of a sample, by index, and the cosine similarity of their vectors."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Analysis:
    """The result for N vectors.

    Attributes:
      norms: float32 [N], the L2 norms.
      neighbours: int [N, K], the rows with the largest cosine similarity, the nearest first; K is at most `NEIGHBOURS`.
      cosines: float32 [N, K], these similarities.
      duplicates: groups of at least two rows with the same bits, the largest group first.
      near_duplicates: pairs of nearest neighbours with a similarity of at least `NEAR_DUPLICATE` and other bits, the
        nearest first.
      outliers: all rows, the one with the smallest mean similarity to its neighbours first.
    """

    norms: NDArray[np.float32]
    neighbours: NDArray[np.intp]
    cosines: NDArray[np.float32]
    duplicates: tuple[tuple[int, ...], ...]
    near_duplicates: tuple[Pair, ...]
    outliers: NDArray[np.intp]

    @property
    def nearest_distances(self) -> NDArray[np.float32]:
        """float32 [N]: the cosine distance of each vector to its nearest neighbour; [0] for a single vector."""
        return np.maximum(0, 1 - self.cosines[:, 0]) if self.cosines.size else np.zeros(0, np.float32)


def analyse(vectors: NDArray[np.float32]) -> Analysis:
    """Returns what some vectors show.

    Args:
      vectors: float32 [N, D].
    """
    norms = np.linalg.norm(vectors, axis=1)
    unit = normalized(vectors)
    neighbours = _neighbours(unit)
    cosines = np.empty(neighbours.shape, np.float32)
    for start in range(0, len(unit), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        cosines[rows] = np.einsum("nd,nkd->nk", unit[rows], unit[neighbours[rows]])
    order = np.argsort(-cosines, axis=1, kind="stable")
    neighbours, cosines = np.take_along_axis(neighbours, order, 1), np.take_along_axis(cosines, order, 1)
    duplicates = _duplicates(vectors)
    mean = cosines.mean(axis=1) if cosines.size else np.zeros(len(vectors))
    return Analysis(
        norms=norms,
        neighbours=neighbours,
        cosines=cosines,
        duplicates=duplicates,
        near_duplicates=_near_duplicates(neighbours, cosines, duplicates),
        outliers=np.argsort(mean, kind="stable"),
    )


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns vectors [N, D] of length 1; a vector of zeros stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _neighbours(unit: NDArray[np.float32]) -> NDArray[np.intp]:
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(unit) - 1)
    if count < 1:
        return np.zeros((len(unit), 0), np.intp)
    # For vectors of length 1, the order by Euclidean distance is that by cosine similarity.
    search = NearestNeighbors(n_neighbors=count, algorithm="brute", metric="euclidean").fit(unit)
    found: NDArray[np.intp] = search.kneighbors(return_distance=False)  # of all others: leaves out the vector itself
    return found


def _duplicates(vectors: NDArray[np.float32]) -> tuple[tuple[int, ...], ...]:
    by_bits: dict[bytes, list[int]] = {}
    for index, vector in enumerate(vectors):
        by_bits.setdefault(vector.tobytes(), []).append(index)
    groups = [tuple(group) for group in by_bits.values() if len(group) > 1]
    return tuple(sorted(groups, key=lambda group: (-len(group), group)))


def _near_duplicates(
    neighbours: NDArray[np.intp], cosines: NDArray[np.float32], duplicates: tuple[tuple[int, ...], ...]
) -> tuple[Pair, ...]:
    group_of = {index: number for number, group in enumerate(duplicates) for index in group}
    pairs: dict[tuple[int, int], Pair] = {}
    for row, column in zip(*np.nonzero(cosines >= NEAR_DUPLICATE), strict=True):
        first, second = sorted((int(row), int(neighbours[row, column])))
        if first not in group_of or group_of[first] != group_of.get(second):
            pairs.setdefault((first, second), Pair(first, second, min(1.0, float(cosines[row, column]))))
    return tuple(sorted(pairs.values(), key=lambda pair: (-pair.cosine, pair.first, pair.second)))
