"""What an inference engine is, and which one a run takes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.hub.module import ImageSignature


class Engine(Protocol):
    """A network that is ready to run; threads may share it.

    Attributes:
      name: `tensorflow`, ...
      batch_size: the largest number of images that one call takes.
      dimension: length D of a vector.
    """

    name: str
    batch_size: int
    dimension: int

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors of some images.

        Args:
          images: float32 [N, height, width, 3], RGB in [0, 1], with 1 <= N <= batch_size.

        Returns:
          float32 [N, D]; row i belongs to image i.
        """
        ...


def load_engine(path: str, signature: ImageSignature, *, engine: str, batch_size: int | None) -> Engine:
    """Loads a module's function into an engine.

    Args:
      path: the module's directory.
      signature: the function to run.
      engine: `tensorflow`.
      batch_size: the largest number of images that one call takes, or None for the engine's choice.

    Raises:
      ModuleError: the module cannot be loaded.
    """
    from pipeline.engines.tensorflow import TensorFlowEngine

    engines = {"tensorflow": TensorFlowEngine}
    return engines[engine](path, signature, batch_size=batch_size)
