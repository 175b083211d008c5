"""Inference by TensorFlow, on GPUs and CPUs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModuleError
from pipeline.hub.module import ImageSignature, freeze

DEFAULT_BATCH_SIZE = 32


class TensorFlowEngine:
    """A module's function, frozen, with one fixed input shape.

    Every call runs the same graph on exactly `batch_size` images; a smaller batch is padded with
    black ones. So TensorFlow traces once and plans its memory once, and the arithmetic that an
    image goes through does not depend on how many neighbours it happens to have.
    """

    name = "tensorflow"

    def __init__(self, path: str, signature: ImageSignature, *, batch_size: int | None = None) -> None:
        """Loads the module in directory `path`.

        Raises:
          ModuleError: the module cannot be loaded, or its output is no vector.
        """
        self.batch_size = batch_size or DEFAULT_BATCH_SIZE
        self._shape = (self.batch_size, signature.height, signature.width, 3)
        self._graph = freeze(path, signature, self.batch_size)
        probe = self._call(np.zeros(self._shape, np.float32))
        if probe.ndim != 2 or probe.shape[0] != self.batch_size:
            raise ModuleError(
                f"output '{signature.output_key}' of signature '{signature.signature}' has shape {probe.shape} for "
                f"{self.batch_size} images; expected one vector an image; choose another --output_key"
            )
        self.dimension = int(probe.shape[1])

    @property
    def trace_count(self) -> int:
        """How many times TensorFlow has traced the function."""
        return self._graph.traces.count

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors float32 [N, D] of images float32 [N, height, width, 3]."""
        count = len(images)
        if count < self.batch_size:
            padded = np.zeros(self._shape, np.float32)
            padded[:count] = images
            images = padded
        return self._call(images)[:count]

    def _call(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import tensorflow as tf

        vectors: NDArray[np.float32] = self._graph.function(tf.constant(images))[0].numpy()
        return vectors
