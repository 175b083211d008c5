"""What an inference engine is, and what it is loaded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.settings import Precision
from pipeline.savedmodel.module import ImageSignature


class Engine(Protocol):
    """A network that is ready to run; threads may share it.

    In float32, the vector of an image depends on nothing but the image: neither on the other images of
    a call, nor on their number, nor on the number of threads. An engine achieves this by running one
    fixed input shape.

    Attributes:
      name: `openvino`, `tensorflow`, ...
      batch_size: how many images one call takes at most; fewer cost as much.
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


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine is loaded from; it travels to the workers.

    Attributes:
      name: `openvino` or `tensorflow`.
      module_path: directory of the module; for workers on other machines, of its staged copy.
      module_sha256: the module's digest.
      signature: the module's function.
      precision: of the computation.
      threads: how many threads compute at a time; None for all cores that the process may use.
    """

    name: str
    module_path: str
    module_sha256: str
    signature: ImageSignature
    precision: Precision = "float32"
    threads: int | None = None
