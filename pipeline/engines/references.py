"""The vectors that a module's own framework computes for images of which the conversion does not have them.

They are kept in the module cache, so that the framework is loaded once for the same images:

```
CACHE/reference-<SHA-256 of the conversion's identity and the images>/module/vectors.npy
```
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.base import ModuleFunction
from pipeline.engines.batches import in_batches
from pipeline.engines.conversion import Converter, call_size
from pipeline.hub.cache import ModuleCache, cache_directory
from pipeline.model_formats.registry import MODEL_FORMATS

_VECTORS = "vectors.npy"


def compute_reference(function: ModuleFunction, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the vectors float32 [N, D] of the framework that a module is made for, from the cache if it has them.

    Args:
      function: of the module.
      images: float32 [N, height, width, 3].

    Raises:
      ModuleError: the module cannot be loaded.
      CacheError: the cache cannot be written.
      ImportError: the framework is not installed.
    """
    signature = function.signature

    def make(work: Path) -> Path:
        network = MODEL_FORMATS[function.format].load(function.local_directory(), function.model_file, signature)
        if not network.has_reference:
            raise ImportError(f"the framework of {function.handle} is not installed")
        (work / "reference").mkdir()
        np.save(work / "reference" / _VECTORS, in_batches(network.reference_vectors, images, call_size(signature)))
        return work / "reference"

    identity = (Converter.here(function.format).identity(function), hashlib.sha256(images.tobytes()).hexdigest())
    cache = ModuleCache(cache_directory(), kind="reference", root_file=_VECTORS)
    vectors: NDArray[np.float32] = np.load(Path(cache.get(function.path, identity, make, None).path, _VECTORS))
    return vectors
