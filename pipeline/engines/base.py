"""What an inference engine is, and what it is loaded from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.settings import Precision
from pipeline.engines.registry import ENGINES
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import ImageSignature


class Engine(Protocol):
    """A network that is ready to run. Subclass it for an engine of your own.

    In float32, the vector of an image depends on nothing but the image: neither on the other images of
    a call, nor on their number, nor on the number of threads. An engine achieves this by running one
    fixed input shape.

    Attributes:
      name: `openvino`, `tensorflow`, ...
      dimension: length D of a vector.
      batch_size: the largest number of images in one call. Fewer cost as much.
      dtype: data type of the images that `infer` takes: `float32`, values in [0, 1]; or `uint8`, 0 to 255.
      concurrent_calls: how many threads may call `infer` at the same time. None: any number, each thread decodes
        and infers its own images; that suits a CPU. A number: that many threads call it, with full batches that all
        decoding threads fill; that suits an accelerator.
      parity: relative L2 difference of the vectors from TensorFlow's, the largest of a few images; None if
        they were not compared.
    """

    name: str
    dimension: int
    batch_size: int
    dtype: Literal["float32", "uint8"] = "float32"
    concurrent_calls: int | None = None
    parity: float | None = None

    def infer(self, images: Any) -> NDArray[np.float32]:
        """Returns the vectors of some images.

        Args:
          images: `dtype` [N, height, width, 3], RGB, with 1 <= N <= batch_size. The caller reuses the array after
            the call.

        Returns:
          float32 [N, D]; row i belongs to image i.
        """
        ...


class EngineSource(Protocol):
    """Loads an engine, once in each worker process; it can be pickled."""

    def load(self) -> Engine:
        """Returns the loaded engine."""
        ...


@dataclass(frozen=True)
class ModuleFunction:
    """How a module is called: which function, by which engine. It travels to the workers, which load it.

    Attributes:
      handle: the module as it was asked for.
      path: directory of the module; for workers on other machines, of its staged copy.
      sha256: the module's digest.
      signature: the function.
      engine: name of the engine; `auto` before it is chosen.
      precision: of the computation.
      threads: how many threads compute at a time; None for all cores that the process may use.
      batch_size: images of one call that were asked for; None for the engine's choice.
    """

    handle: str
    path: str
    sha256: str
    signature: ImageSignature
    engine: str = "auto"
    precision: Precision = "float32"
    threads: int | None = None
    batch_size: int | None = None

    def load(self) -> Engine:
        """Returns the engine, loaded from wherever the module lies.

        Raises:
          ModuleError: the module cannot be found or loaded, has another digest, or the engine cannot compute it.
        """
        module = resolve_module(self.path, sha256=self.sha256)
        return dataclasses.replace(self, path=module.path).compile()

    def compile(self) -> Engine:
        """Returns the engine, loaded from a directory whose digest is known.

        Raises:
          ModuleError: the module cannot be loaded, or the engine cannot compute it.
        """
        engine: Engine = ENGINES.load(self.engine)(self)
        return engine
