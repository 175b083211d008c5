"""Inference by TensorFlow, on GPUs and CPUs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.cores import usable_cores
from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow
from pipeline.engines import gpu
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.engines.batches import fill_up, in_batches
from pipeline.savedmodel.freezing import freeze
from pipeline.savedmodel.signatures import ImageSignature

_log = logging.getLogger(__name__)

CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 128
"""Images of a call on a GPU, unless `--batch_size` says otherwise."""


class TensorFlowEngine(Engine):
    """A module's function, frozen, with one fixed input shape.

    Every call runs the same graph on exactly `batch_size` images; black images pad a smaller batch. TensorFlow traces
    and plans its memory once, and the arithmetic of an image does not depend on the number of images in the call.

    If the function takes encoded images, it decodes them itself; the vector of an image that it refuses is NaN.
    """

    name = "tensorflow"

    def __init__(self, function: ModuleFunction) -> None:
        """Compiles a module's function.

        Raises:
          ModuleError: the module cannot be loaded, or its output is not a vector.
        """
        signature = function.signature
        if gpu.sees_gpu():
            self.batch_size = function.batch_size or GPU_BATCH_SIZE
            self.concurrent_calls = 1
        else:
            self.batch_size = CPU_BATCH_SIZE
        self.batch_size = signature.fixed_batch_size or self.batch_size
        self.dtype = "encoded" if signature.is_encoded else "float32"
        _limit_threads(function.threads or usable_cores())
        self._graph = freeze(function.local_directory(), signature, self.batch_size)
        probe = self._graph.compute(fill_up(_probe(signature), self.batch_size))
        if probe.ndim != 2 or probe.shape[0] != self.batch_size:
            raise ModuleError(
                f"output '{signature.output_key}' of signature '{signature.signature}' has shape {probe.shape} for "
                f"{self.batch_size} images; expected one vector an image; choose another --output_key or say --pooling"
            )
        self.dimension = int(probe.shape[1])
        self.reference = f"tensorflow {importlib.metadata.version('tensorflow')}"

    @property
    def trace_count(self) -> int:
        """Number of times that TensorFlow has traced the function."""
        return self._graph.traces.count

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the vectors float32 [N, D] of images, float32 [N, height, width, 3] or N encoded ones."""
        try:
            return self._graph.compute(fill_up(images, self.batch_size))[: len(images)]
        except ModuleError as error:
            if self.dtype != "encoded":
                raise
            if len(images) == 1:
                _log.warning("the module refuses an image: %s", error)
                return np.full((1, self.dimension), np.nan, np.float32)
        return np.concatenate([self.infer(images[index : index + 1]) for index in range(len(images))])

    def reference_vectors(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the vectors of any number of images: TensorFlow is the reference of its modules."""
        return in_batches(self.infer, images, self.batch_size)


def _probe(signature: ImageSignature) -> NDArray[Any]:
    """Returns one black image, as the signature takes it."""
    if signature.is_encoded:
        return np.array([cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()], object)
    return np.zeros((1, signature.height, signature.width, 3), np.float32)


def _limit_threads(threads: int) -> None:
    """Sets the number of TensorFlow's threads; TensorFlow accepts this only before its first computation."""
    import_tensorflow()
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
