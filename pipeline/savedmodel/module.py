"""Reads a module on disk: its signatures and the image size that it expects."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import DecodeError

from pipeline.core.errors import ModuleError
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.digest import SAVED_MODEL, module_digest
from pipeline.savedmodel.messages import dtype_name, parse_saved_model
from pipeline.savedmodel.safety import UnsafeOperation, find_unsafe_operations

_DECODING = re.compile(r"Decode(AndCrop)?(Image|Jpeg|Png|Bmp|Gif|WebP)")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
      key: its name within the signature.
      dtype: the name of its data type, such as `float32`.
      shape: its dimensions, None for an unknown one; or None where the rank is unknown.
      default: for an input that callers may leave out, the value that it then has, as a serialized TensorProto.
    """

    key: str
    dtype: str
    shape: tuple[int | None, ...] | None
    default: bytes | None = None

    def __str__(self) -> str:
        dims = "unknown shape" if self.shape is None else ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.key}: {self.dtype}[{dims}]"


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    """The inputs and outputs of a signature, by key."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Module:
    """A module on disk.

    Attributes:
      handle: what the user calls the module.
      path: the directory that holds the module's files.
      sha256: the module's digest, 64 lower-case hexadecimal digits; see `module_digest`.
      format: `tf1_hub` (a directory with `tfhub_module.pb`), `tf2` (any other SavedModel), `onnx` or `openvino_ir`.
      tag_sets: the tags of each graph version; the empty set is `()`.
      signatures: the signatures of the graph version for inference, by name.
      image_size: height and width in pixels from the attachment `image_module_info`, or None.
      unsafe_operations: the kinds of operations in any graph version that reach files, processes or the network.
      decodes_images: whether the graph for inference has operations that decode images.
      model_file: the file that says what the module is, relative to `path`, with `/`.
    """

    handle: str
    path: str
    sha256: str
    format: Literal["tf1_hub", "tf2", "onnx", "openvino_ir"]
    tag_sets: tuple[tuple[str, ...], ...]
    signatures: Mapping[str, SignatureInfo]
    image_size: tuple[int, int] | None
    unsafe_operations: tuple[UnsafeOperation, ...] = ()
    decodes_images: bool = False
    model_file: str = SAVED_MODEL


def read_module(path: str, *, handle: str | None = None, sha256: str | None = None) -> Module:
    """Reads the module in a directory, without building its graphs.

    Args:
      path: the directory.
      handle: what the user calls the module; default: the path.
      sha256: the module's digest; computed by default, which reads all files.

    Raises:
      ModuleError: the directory holds no SavedModel, or one that cannot be read.
    """
    try:
        saved_model = parse_saved_model((Path(path) / SAVED_MODEL).read_bytes())
    except OSError as error:
        raise ModuleError(f"{path} is not a module: saved_model.pb cannot be read: {error.strerror}") from None
    except DecodeError:
        raise ModuleError(f"{path} is not a module: its saved_model.pb is damaged; fetch it again") from None
    is_hub = hub_format.is_hub_module(path)
    wanted = set() if is_hub else {"serve"}
    by_tags = {frozenset(graph.meta_info_def.tags): graph for graph in saved_model.meta_graphs}
    graph = by_tags.get(frozenset(wanted))
    tag_sets = tuple(tuple(graph.meta_info_def.tags) for graph in saved_model.meta_graphs)
    if graph is None:
        found = ", ".join("[" + ", ".join(tags) + "]" for tags in tag_sets) or "none"
        raise ModuleError(f"{path} has no graph with tags {sorted(wanted)}; its graphs have the tags {found}")
    return Module(
        handle=handle or path,
        path=path,
        sha256=sha256 or module_digest(path),
        format="tf1_hub" if is_hub else "tf2",
        tag_sets=tag_sets,
        signatures={
            name: SignatureInfo(
                _tensor_infos(signature.inputs, _default_values(graph, signature)), _tensor_infos(signature.outputs)
            )
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__")
        },
        image_size=hub_format.read_image_size(graph),
        unsafe_operations=find_unsafe_operations(saved_model.meta_graphs),
        decodes_images=_decodes_images(graph.graph_def),
    )


def _decodes_images(graph: Any) -> bool:
    nodes = itertools.chain(graph.node, *(function.node_def for function in graph.library.function))
    return any(_DECODING.fullmatch(node.op) for node in nodes)


def _tensor_infos(tensors: Mapping[str, Any], defaults: Mapping[str, bytes] | None = None) -> dict[str, TensorInfo]:
    infos = {}
    for key, tensor in sorted(tensors.items()):
        shape = tensor.tensor_shape
        dims = None if shape.unknown_rank else tuple(None if d.size < 0 else int(d.size) for d in shape.dim)
        infos[key] = TensorInfo(key, dtype_name(tensor.dtype), dims, (defaults or {}).get(key))
    return infos


def _default_values(graph: Any, signature: Any) -> dict[str, bytes]:
    """Returns the values of the inputs that callers may leave out, by key, as serialized TensorProtos.

    TensorFlow 2 stores them with the signature. In a graph of TensorFlow 1, the input is a `PlaceholderWithDefault`
    whose input is a constant.
    """
    defaults = dict(signature.defaults)
    by_node = {tensor.name.partition(":")[0]: key for key, tensor in signature.inputs.items()}
    constants = {
        node.input[0].partition(":")[0]: by_node[node.name]
        for node in graph.graph_def.node
        if node.op == "PlaceholderWithDefault" and node.name in by_node and node.input
    }
    for node in graph.graph_def.node:
        if node.op == "Const" and node.name in constants:
            defaults[constants[node.name]] = node.attr["value"].tensor
    return defaults
