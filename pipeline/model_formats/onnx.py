"""ONNX models: a file `*.onnx`, perhaps with files of weights beside it.

The file is read without the package onnx, and OpenVINO computes the network. ONNX Runtime, if it is installed, computes
the reference vectors.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar

from google.protobuf.message import DecodeError

from pipeline.core.errors import ModuleError
from pipeline.model_formats.base import Reference, find_one
from pipeline.model_formats.image_graph import FUNCTION, fed_array, pooled_array, read_function, with_channels
from pipeline.model_formats.onnx_messages import DTYPES, EXTERNAL, parse_model
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo
from pipeline.savedmodel.safety import UnsafeOperation
from pipeline.savedmodel.signatures import ImageSignature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
"""The domains whose operators ONNX Runtime or OpenVINO bring with them; others come from libraries of native code."""
_LFS_POINTER = b"version https://git-lfs"
_PYTHON = ("PythonOp", "PythonOpGrad")
"""The operators of `com.microsoft` that call Python."""


class Onnx:
    """The `ModuleFormat` of ONNX models."""

    title: ClassVar[str] = "an ONNX model"
    reference: ClassVar[Reference | None] = Reference("onnxruntime", "ONNX Runtime")

    def find(self, names: Collection[str]) -> str | None:
        """See `ModuleFormat`."""
        return find_one(names, ".onnx", ("model.onnx",), "onnx")

    def companions(self, path: Path) -> tuple[str, ...]:
        """See `ModuleFormat`; the files of external data."""
        return _external_files(_parse(path), str(path))

    def read(self, directory: str, model_file: str, *, handle: str, sha256: str) -> Module:
        """See `ModuleFormat`."""
        path = Path(directory, model_file)
        model = _parse(path)
        for name in _external_files(model, handle):
            if not (path.parent / name).is_file():
                raise ModuleError(
                    f"module {handle}: its weights are in {name}, which is missing; put the file beside {path.name}"
                )
        weights = {tensor.name for tensor in model.graph.initializer}
        return Module(
            handle=handle,
            path=directory,
            sha256=sha256,
            format="onnx",
            tag_sets=(),
            signatures={
                FUNCTION: SignatureInfo(
                    with_channels(_tensor_infos(value for value in model.graph.input if value.name not in weights)),
                    _tensor_infos(model.graph.output),
                )
            },
            image_size=None,
            unsafe_operations=_unsafe_operations(model),
            model_file=model_file,
        )

    def load(self, directory: str, model_file: str, signature: ImageSignature) -> OnnxNetwork:
        """See `ModuleFormat`."""
        return OnnxNetwork(Path(directory, model_file), signature)


class OnnxNetwork:
    """The `Network` of an ONNX model."""

    def __init__(self, path: Path, signature: ImageSignature) -> None:
        self._path = path
        self._signature = signature
        self._session: Any = None

    @property
    def has_reference(self) -> bool:
        """Whether ONNX Runtime is installed, and the model takes numbers of a kind that NumPy has."""
        try:
            importlib.import_module("onnxruntime")
        except ImportError:
            return False
        return self._signature.dtype != "bfloat16"

    def openvino_model(self, scratch: Path) -> Any:
        """See `Network`."""
        return read_function(self._path, self._signature)

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Network`; the vectors of ONNX Runtime."""
        import numpy as np
        import onnxruntime

        signature = self._signature
        inputs = {signature.input_key: fed_array(images, signature)}
        inputs |= dict.fromkeys(signature.switches, np.array(False))
        try:
            if self._session is None:
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4  # its warnings are about its own optimisations
                self._session = onnxruntime.InferenceSession(
                    str(self._path), options, providers=["CPUExecutionProvider"]
                )
            (output,) = self._session.run([signature.output_key], inputs)
        except Exception as error:  # of many classes, without a common base
            text = " ".join(str(error).split())[:300]
            raise ModuleError(f"ONNX Runtime cannot compute {self._path}: {text}; is the model complete?") from error
        return pooled_array(output, signature)


def _parse(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if data.startswith(_LFS_POINTER):
            raise ModuleError(
                f"{path} is a pointer of Git LFS in the place of the file; run `git lfs pull` in its repository"
            )
        model = parse_model(data)
    except OSError as error:
        raise ModuleError(f"{path} cannot be read: {error.strerror}") from None
    except DecodeError:
        raise ModuleError(f"{path} is not an ONNX model, or it is damaged; fetch it again") from None
    if not model.graph.node:
        raise ModuleError(f"{path} is not an ONNX model: it has no graph; fetch it again")
    return model


def _tensor_infos(values: Any) -> dict[str, TensorInfo]:
    infos = {}
    for value in values:
        tensor = value.type.tensor_type
        dims = (int(dim.dim_value) if dim.dim_value > 0 else None for dim in tensor.shape.dim)
        shape = tuple(dims) if tensor.HasField("shape") else None
        infos[value.name] = TensorInfo(value.name, DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}"), shape)
    return infos


def _nodes(nodes: Any) -> Iterator[Any]:
    """Yields nodes and the nodes of the graphs in their attributes."""
    for node in nodes:
        yield node
        for graph in _graphs_of(node):
            yield from _nodes(graph.node)


def _graphs_of(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(model: Any) -> Iterator[Any]:
    return itertools.chain(_nodes(model.graph.node), *(_nodes(function.node) for function in model.functions))


def _unsafe_operations(model: Any) -> tuple[UnsafeOperation, ...]:
    """Returns the operators that need native code from elsewhere, or call Python."""
    own = {(function.domain, function.name) for function in model.functions}
    found: dict[str, set[str]] = {}
    for node in _all_nodes(model):
        is_known = node.domain in _DOMAINS and node.op_type not in _PYTHON
        if not is_known and (node.domain, node.op_type) not in own:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            found.setdefault(name, set()).add(node.name or "without a name")
    return tuple(UnsafeOperation(name, "libraries", tuple(sorted(nodes))) for name, nodes in sorted(found.items()))


def _tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    for node in _all_nodes(model):
        graphs += _graphs_of(node)
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _external_files(model: Any, origin: str) -> tuple[str, ...]:
    """Returns the files with the values of tensors, relative to the model file.

    Raises:
      ModuleError: a file would be outside of the directory of the model file.
    """
    names = {
        entry.value
        for tensor in _tensors(model)
        if tensor.data_location == EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        path, foreign = PurePosixPath(name), PureWindowsPath(name)
        if not path.parts or path.is_absolute() or foreign.anchor or ".." in path.parts or ".." in foreign.parts:
            raise ModuleError(
                f"module {origin}: its weights would be read from {name!r}, outside of its directory; use a model from "
                "a source that you trust"
            )
    return tuple(sorted(names))
