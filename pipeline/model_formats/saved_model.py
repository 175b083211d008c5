"""SavedModels of TensorFlow, and modules of the TF1 Hub format."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.model_formats.base import Reference
from pipeline.model_formats.openvino_package import ADVICE, OpenVINOError, import_openvino
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.savedmodel.module import Module, read_module
from pipeline.savedmodel.signatures import ImageSignature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SavedModel:
    """The `ModuleFormat` of SavedModels."""

    title: ClassVar[str] = "a TensorFlow module"
    reference: ClassVar[Reference | None] = Reference("tensorflow", "TensorFlow")

    def find(self, names: Collection[str]) -> str | None:
        """See `ModuleFormat`."""
        return SAVED_MODEL if SAVED_MODEL in names else None

    def companions(self, path: Path) -> tuple[str, ...]:
        """See `ModuleFormat`; the files of a SavedModel are those of its directory."""
        return ()

    def read(self, directory: str, model_file: str, *, handle: str, sha256: str) -> Module:
        """See `ModuleFormat`."""
        return read_module(directory, handle=handle, sha256=sha256)

    def load(self, directory: str, model_file: str, signature: ImageSignature) -> FrozenNetwork:
        """See `ModuleFormat`; imports TensorFlow."""
        return FrozenNetwork(directory, signature)


class FrozenNetwork:
    """The `Network` of a SavedModel's function."""

    has_reference = True

    def __init__(self, directory: str, signature: ImageSignature) -> None:
        from pipeline.savedmodel.freezing import freeze

        self._directory = directory
        self._signature = signature
        self._images = signature.fixed_batch_size or 1
        self._graph = freeze(directory, signature, self._images)

    def openvino_model(self, scratch: Path) -> Any:
        """See `Network`."""
        signature = self._signature
        if not self._graph.is_constant:
            raise OpenVINOError(
                f"OpenVINO cannot compute signature '{signature.signature}' of {self._directory}: its output "
                f"'{signature.output_key}' depends on a lookup table{ADVICE}"
            )
        frozen = scratch / "frozen.pb"
        frozen.write_bytes(self._graph.function.graph.as_graph_def().SerializeToString())
        model = import_openvino().Core().read_model(frozen)
        model.reshape([self._images, signature.height, signature.width, 3])
        return model

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network`; the vectors of TensorFlow."""
        return self._graph.compute(images)
