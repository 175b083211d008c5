"""The interface of inference engines, and the module function that an engine compiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.core.settings import Precision
from pipeline.engines.registry import ENGINES
from pipeline.hub.resolve import resolve_module
from pipeline.hub.staging import not_seen
from pipeline.model_formats.registry import MODEL_FORMATS, SAVED_MODEL_FORMATS
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.savedmodel.signatures import ImageSignature
from pipeline.storage import filesystem

if TYPE_CHECKING:
    from pipeline.engines.conversion import StagedConversion


class Engine(Protocol):
    """A network that is ready to run. Custom engines subclass it.

    In float32, the vector of an image depends only on the image: not on the other images of a call, nor on their
    number, nor on the number of threads. For this, an engine runs one fixed input shape.

    Attributes:
      name: `openvino`, `tensorflow`, ...
      dimension: length D of a vector.
      batch_size: the largest number of images in one call. Smaller batches take the same time.
      dtype: data type of the images for `infer`: `float32`, the values of the image transform (by default [0, 1]);
        `uint8`, 0 to 255; or `encoded`, the bytes of the files.
      concurrent_calls: number of threads that may call `infer` at the same time. None: any number, and each thread
        decodes and infers its own images; suits a CPU. A number: that many threads call `infer` with full batches,
        which all decoding threads fill; suits an accelerator.
      parity: largest relative L2 difference from the reference's vectors of a few images; None if not compared.
      reference: name and version of the package that computes `reference_vectors`; None if there is none.
      formats: formats of the modules that the engine computes; see `Module.format`.
    """

    name: str
    dimension: int
    batch_size: int
    dtype: Literal["float32", "uint8", "encoded"] = "float32"
    concurrent_calls: int | None = None
    parity: float | None = None
    reference: str | None = None
    formats: ClassVar[tuple[str, ...]] = SAVED_MODEL_FORMATS

    def infer(self, images: Any) -> NDArray[np.float32]:
        """Returns the vectors of some images.

        Args:
          images: `dtype` [N, height, width, 3], with 1 <= N <= batch_size; an array of N `bytes` objects if the
            dtype is `encoded`. The caller overwrites the array after the call.

        Returns:
          float32 [N, D]; row i belongs to image i.
        """
        ...

    def reference_vectors(self, images: Any) -> NDArray[np.float32] | None:
        """Returns the vectors that the framework of the module computes for some images; None if it is not there.

        Args:
          images: any number, as for `infer`.
        """
        del images
        return None


@dataclass(frozen=True)
class ModuleFunction:
    """A function of a module and the engine that computes it. Workers receive this record and load the engine.

    Attributes:
      handle: the module's handle, as in `--module`.
      path: directory of the module; for workers on other machines, of its staged copy.
      sha256: the module's digest.
      signature: the function.
      engine: name of the engine; `auto` before the choice.
      precision: of the computation.
      threads: number of computing threads; None for one per core that the process may use.
      batch_size: requested number of images of one call; None for the engine's default.
      is_staged: whether `path` is a copy that the launcher has staged.
      conversion: the staged copy of the module in OpenVINO's format; None if there is none.
      format: of the module.
      model_file: the file that says what the module is, relative to its directory, with `/`.
    """

    handle: str
    path: str
    sha256: str
    signature: ImageSignature
    engine: str = "auto"
    precision: Precision = "float32"
    threads: int | None = None
    batch_size: int | None = None
    is_staged: bool = False
    conversion: StagedConversion | None = None
    format: str = "tf2"
    model_file: str = SAVED_MODEL

    def load(self) -> Engine:
        """Returns the compiled engine.

        Raises:
          ModuleError: the module cannot be found or loaded, has another digest, or the engine cannot compute it.
        """
        make = ENGINES.load(self.engine)
        if self.format not in getattr(make, "formats", SAVED_MODEL_FORMATS):
            raise ModuleError(
                f"--engine={self.engine} cannot compute {self.handle}, which is {MODEL_FORMATS[self.format].title}; "
                "use --engine=openvino"
            )
        engine: Engine = make(self)
        return engine

    def local_directory(self) -> str:
        """Returns the directory of the module on this machine, after a check of its digest. For engines.

        Raises:
          ModuleError: the module cannot be found, or has another digest.
        """
        try:
            return resolve_module(self.path, sha256=self.sha256).path
        except ModuleError as error:
            if self.is_staged and not filesystem.exists(filesystem.join(self.path, self.model_file)):
                raise not_seen(self.path) from error
            raise
