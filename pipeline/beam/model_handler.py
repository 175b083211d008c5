"""`EmbeddingModelHandler`: embeds images with Beam's `RunInference`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.core.quiet import ignore_pillow_warnings
from pipeline.core.records import ImageRecord
from pipeline.embedding.embedder import Embedder
from pipeline.embedding.embedder_spec import EmbedderSpec
from pipeline.images.resize import resize_in_calling_thread

MIN_BATCH_SIZE = 64
"""Images that Beam collects at least for a batch: all decoding threads of a worker shall have work."""
MAX_BATCH_SIZE = 512


class EmbeddingModelHandler(ModelHandler[bytes, PredictionResult, Embedder]):
    """Turns encoded images into vectors in `RunInference`, with the bits of `EmbedImages`.

    Each element is an encoded image (bytes). Its `PredictionResult` has the image as `example`, and as `inference` the
    vector (float32 [D]), or a `Failure` that says why there is none. So every element has a result.
    `KeyedModelHandler(handler)` of Beam takes pairs of a key and an image.

    Example:
      ```
      images | RunInference(EmbeddingModelHandler.from_module("module.tar.gz"))
      ```
    """

    def __init__(self, spec: EmbedderSpec) -> None:
        """Makes a handler.

        Args:
          spec: settings from which each worker process loads its embedder.
        """
        super().__init__(min_batch_size=MIN_BATCH_SIZE, max_batch_size=MAX_BATCH_SIZE)
        self._spec = spec

    @classmethod
    def from_module(cls, handle: str | os.PathLike[str], **settings: Any) -> EmbeddingModelHandler:
        """Returns the handler of a module; arguments and errors are those of `Embedder.from_module`.

        This call loads the module once, to choose its engine.
        """
        with Embedder.from_module(handle, **settings) as embedder:
            assert embedder.spec is not None
            return cls(embedder.spec)

    def load_model(self) -> Embedder:
        """Loads the embedder of a worker process.

        Raises:
          ModuleError: the module cannot be found or loaded, or has another digest.
        """
        ignore_pillow_warnings()
        resize_in_calling_thread()
        return Embedder.load(self._spec)

    def run_inference(
        self, batch: Sequence[bytes], model: Embedder, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        """Yields the result of each image, in their order.

        Args:
          batch: encoded images.
          model: the embedder.
          inference_args: none are known.
        """
        records = [ImageRecord(b"%d" % index, "", image) for index, image in enumerate(batch)]
        found = model.embed(records)
        results: dict[bytes, npt.NDArray[np.float32] | Failure] = {
            failure.key: dataclasses.replace(failure, key=b"") for failure in found.failures
        }
        for rows in found.rows:
            vectors = rows.column("embedding").flatten().to_numpy().reshape(rows.num_rows, -1)
            results |= zip(rows.column("key").to_pylist(), vectors, strict=True)
        for record in records:
            yield PredictionResult(record.image, results[record.key], self._spec.source.handle)

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuses arguments for single calls.

        Raises:
          UsageError: there are some.
        """
        if inference_args:
            raise UsageError(f"inference_args={inference_args!r}; expected none: the handler's own settings count")

    def update_model_path(self, model_path: str | None = None) -> None:
        """Refuses another module: vectors of two modules cannot be compared.

        Args:
          model_path: from the side input of `RunInference`; empty or None if the module stays.

        Raises:
          UsageError: there is a path.
        """
        if model_path:
            raise UsageError(
                f"RunInference got the new model {model_path}; expected none, because vectors of two modules cannot be "
                "compared; start another pipeline with the handler of the new module"
            )

    def get_num_bytes(self, batch: Sequence[bytes]) -> int:
        """Returns the number of bytes of a batch of encoded images."""
        return sum(map(len, batch))

    def get_metrics_namespace(self) -> str:
        """Returns the namespace of the metrics that `RunInference` keeps."""
        return "EmbeddingModelHandler"
