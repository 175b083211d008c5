"""SavedModels of TensorFlow, and modules of the TF1 Hub format."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.core.errors import ModuleError
from pipeline.model_formats.base import Reference
from pipeline.model_formats.openvino_package import import_openvino
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.savedmodel.module import FrozenGraph, ImageSignature, Module, choose_signature, freeze, read_module

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

    def choose_signature(
        self, module: Module, *, signature: str | None, output_key: str | None, image_size: tuple[int, int] | None
    ) -> ImageSignature:
        """See `ModuleFormat`."""
        return choose_signature(module, signature=signature, output_key=output_key, image_size=image_size)

    def load(self, directory: str, model_file: str, signature: ImageSignature) -> FrozenNetwork:
        """See `ModuleFormat`; imports TensorFlow."""
        return FrozenNetwork(freeze(directory, signature, 1), signature)


class FrozenNetwork:
    """The `Network` of a SavedModel's function."""

    def __init__(self, graph: FrozenGraph, signature: ImageSignature) -> None:
        self._graph = graph
        self._signature = signature

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network`."""
        import numpy as np

        return np.concatenate([self._call(images[i : i + 1]) for i in range(len(images))])

    def _call(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import tensorflow as tf

        vectors: NDArray[np.float32] = self._graph.function(tf.constant(images))[0].numpy()
        if vectors.ndim != 2 or len(vectors) != len(images):
            raise ModuleError(
                f"the output for {len(images)} image has shape {list(vectors.shape)}; expected one vector an image; "
                "choose another --output_key"
            )
        return vectors

    def openvino_model(self, scratch: Path) -> Any:
        """See `Network`."""
        frozen = scratch / "frozen.pb"
        frozen.write_bytes(self._graph.function.graph.as_graph_def().SerializeToString())
        model = import_openvino().Core().read_model(frozen)
        model.reshape([1, self._signature.height, self._signature.width, 3])
        return model
