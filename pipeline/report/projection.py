"""Maps of vectors onto a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.report.analysis import normalized

MapName = Literal["pca", "umap"]
_UMAP_INPUTS = 50
"""UMAP gets so many principal components: the map is the same to the eye, and it takes a fraction of the time."""


@dataclass(frozen=True)
class Projection:
    """A map.

    Attributes:
      name: of the map, for people.
      points: float32 [N, 2].
    """

    name: str
    points: NDArray[np.float32]


def project(vectors: NDArray[np.float32], name: MapName, seed: int) -> tuple[Projection, ...]:
    """Returns the maps of some vectors, each scaled to length 1 first: by PCA, and another one if asked.

    Args:
      vectors: float32 [N, D].
      name: `pca`, or `umap` for a second map.
      seed: of the random numbers.

    Raises:
      UsageError: the package for the map is not installed.
    """
    components = _components(normalized(vectors), seed)
    points = np.zeros((len(vectors), 2), np.float32)
    points[:, : min(2, components.shape[1])] = components[:, :2]
    maps = [Projection("PCA", points)]
    if name == "umap":
        maps.insert(0, Projection("UMAP", _umap(components, seed)))
    return tuple(maps)


def _components(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    count = min(_UMAP_INPUTS, *vectors.shape)
    if len(vectors) < 2 or not np.ptp(vectors, axis=0).any():  # one point: there is no variance to explain
        return np.zeros((len(vectors), count), np.float32)
    found: NDArray[np.float32] = PCA(count, random_state=seed).fit_transform(vectors)
    return found


def _umap(components: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    try:
        from umap import UMAP
    except ImportError:
        raise UsageError(
            "--map=umap needs the package umap-learn; install the extra 'report', or leave --map out"
        ) from None
    if len(components) < 5:  # too few for a graph of neighbours
        return components[:, :2] if components.shape[1] > 1 else np.zeros((len(components), 2), np.float32)
    neighbours = min(15, len(components) - 1)
    model = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(components), np.float32)
