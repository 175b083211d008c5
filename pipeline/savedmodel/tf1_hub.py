"""The TF1 Hub format on disk, read and written with TensorFlow 2.

```
tfhub_module.pb                            ModuleDef: format 3, no required features
saved_model.pb                             one MetaGraphDef for each graph version, told apart by its tags
variables/variables.index
variables/variables.data-00000-of-00001    name-based checkpoint
```

The format is that of tensorflow_hub 0.12, the last release that wrote it; its messages are in `module_def.proto`,
`module_attachment.proto` and `image_module_info.proto` there. Equal values give equal bytes, whichever TensorFlow
writes them, so that the digest of a module says what is in it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from pipeline.core.errors import ModuleError
from pipeline.core.protobuf import message_classes
from pipeline.savedmodel.digest import SAVED_MODEL

if TYPE_CHECKING:
    import numpy as np

INFERENCE: frozenset[str] = frozenset()
TRAIN = frozenset({"train"})

_MODULE_FILE = "tfhub_module.pb"
_FORMAT_V3 = 3
_ATTACHMENTS = "hub_module_attachments"
_IMAGE_MODULE_INFO = "image_module_info"
# tensorflow_hub 0.12 refuses a module with any collection that it does not know; these it does.
_COLLECTIONS = ("variables", "model_variables", "trainable_variables", "regularization_losses", "update_ops")
# The oldest TensorFlow that takes the graphs, not the one that happens to write them: the latter must not show in
# the bytes.
_TENSORFLOW_VERSION = "1.15.0"
_GRAPH_DEF_VERSION = 134
# Attributes that TensorFlow 2.x adds to an operation, and that 1.15 then refuses.
_UNPORTABLE_ATTRIBUTES = {"VarHandleOp": ("debug_name",)}


# The graphs of a SavedModel are messages of TensorFlow, encoded already; bytes and a message are the same on the wire.
_DECLARATION = """
    message ModuleDef { int32 format = 1; repeated string required_features = 2; }
    message ModuleAttachment { string key = 1; bytes value = 2; }
    message InputSize { int32 height = 1; int32 width = 2; }
    message ImageModuleInfo { InputSize default_image_size = 1; }
    message SavedModel { repeated bytes meta_graphs = 2; }
"""


class ImageSize(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Signature:
    """One way to call a module.

    Attributes:
      inputs: tensors of the graph by the names that callers use.
      outputs: likewise.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def is_hub_module(directory: str | os.PathLike[str]) -> bool:
    """Returns whether a directory holds a module in the TF1 Hub format.

    Raises:
      ModuleError: it holds one in another version of the format, or a damaged one.
    """
    path = Path(directory, _MODULE_FILE)
    if not path.is_file():
        return False
    definition = _messages()["ModuleDef"]()
    try:
        definition.ParseFromString(path.read_bytes())
    except DecodeError:
        raise ModuleError(f"{path} is damaged: it holds no ModuleDef message; fetch the module again") from None
    if definition.format != _FORMAT_V3 or definition.required_features:
        raise ModuleError(
            f"{path} asks for module format {definition.format} and features {list(definition.required_features)}: "
            f"only format {_FORMAT_V3} without features can be read"
        )
    return True


def read_image_size(meta_graph: Any) -> ImageSize | None:
    """Returns the image size in a MetaGraphDef's attachment `image_module_info`; None where there is none.

    Raises:
      ModuleError: the attachment is damaged.
    """
    if _ATTACHMENTS not in meta_graph.collection_def:
        return None
    try:
        for serialized in meta_graph.collection_def[_ATTACHMENTS].bytes_list.value:
            attachment = _messages()["ModuleAttachment"].FromString(serialized)
            if attachment.key == _IMAGE_MODULE_INFO:
                size = _messages()["ImageModuleInfo"].FromString(attachment.value).default_image_size
                return ImageSize(size.height, size.width) if size.height > 0 and size.width > 0 else None
    except DecodeError:
        raise ModuleError("the module's attachment image_module_info is damaged; fetch the module again") from None
    return None


def make_meta_graph(
    graph: Any, tags: Collection[str], signatures: Mapping[str, Signature], image_size: ImageSize
) -> Any:
    """Returns one graph version of a module as a MetaGraphDef.

    Args:
      graph: a `tf.Graph` of resource variables, with TensorFlow 1's collections.
      tags: `INFERENCE` or `TRAIN`.
      signatures: by name.
      image_size: what the module expects; goes into the attachment `image_module_info`.
    """
    import tensorflow as tf

    with graph.as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(collection_list=_COLLECTIONS, strip_default_attrs=True)
    info = meta_graph.meta_info_def
    info.tags.extend(sorted(tags))
    info.tensorflow_version = _TENSORFLOW_VERSION
    info.tensorflow_git_version = f"v{_TENSORFLOW_VERSION}"
    meta_graph.graph_def.versions.producer = _GRAPH_DEF_VERSION
    for node in meta_graph.graph_def.node:
        # Readers infer the shapes themselves.
        for attribute in ("_output_shapes", *_UNPORTABLE_ATTRIBUTES.get(node.op, ())):
            node.attr.pop(attribute, None)
    for operation in info.stripped_op_list.op:
        unportable = _UNPORTABLE_ATTRIBUTES.get(operation.name, ())
        kept = [attribute for attribute in operation.attr if attribute.name not in unportable]
        del operation.attr[:]
        operation.attr.extend(kept)
    for name, signature in signatures.items():
        # The method name stays empty: that is how the format's readers know a module's signatures.
        definition = meta_graph.signature_def[name]
        for key, tensor in signature.inputs.items():
            _describe(tensor, definition.inputs[key])
        for key, tensor in signature.outputs.items():
            _describe(tensor, definition.outputs[key])
    size = _encode("ImageModuleInfo", default_image_size=image_size._asdict())
    attachment = _encode("ModuleAttachment", key=_IMAGE_MODULE_INFO, value=size)
    attachments = meta_graph.collection_def[_ATTACHMENTS].bytes_list.value
    attachments.append(attachment)
    return meta_graph


def write(directory: Path, meta_graphs: Sequence[Any], values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes a module in the TF1 Hub format.

    Args:
      directory: made if need be; must not hold a module yet.
      meta_graphs: the graph versions, each from `make_meta_graph`.
      values: the variables of all graph versions by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    encoded = [meta_graph.SerializeToString(deterministic=True) for meta_graph in meta_graphs]
    (directory / SAVED_MODEL).write_bytes(_encode("SavedModel", meta_graphs=encoded))
    write_variables(directory, values)
    (directory / _MODULE_FILE).write_bytes(_encode("ModuleDef", format=_FORMAT_V3))


def write_variables(directory: Path, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes the checkpoint of a module.

    Args:
      directory: the module's; its folder `variables` is made if need be.
      values: by name.
    """
    import tensorflow as tf

    names = sorted(values)
    prefix = directory / "variables" / "variables"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=os.fspath(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[name]) for name in names],
    )


def _describe(tensor: Any, info: Any) -> None:
    """Fills in a TensorInfo message."""
    info.name = tensor.name
    info.dtype = tensor.dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(tensor.shape.as_proto())


def _encode(message: str, **fields: Any) -> bytes:
    """Returns a message of the format; equal fields give equal bytes."""
    encoded: bytes = _messages()[message](**fields).SerializeToString(deterministic=True)
    return encoded


@functools.cache
def _messages() -> Mapping[str, Any]:
    """Returns the messages of the format, which tensorflow_hub no longer ships."""
    return message_classes("pipeline.tf1_hub", _DECLARATION)
