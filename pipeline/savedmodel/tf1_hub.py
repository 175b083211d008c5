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

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pipeline.core.errors import ModuleError

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
    definition = _ModuleDef()
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
            attachment = _ModuleAttachment.FromString(serialized)
            if attachment.key == _IMAGE_MODULE_INFO:
                size = _ImageModuleInfo.FromString(attachment.value).default_image_size
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
    size = _ImageModuleInfo(default_image_size=_InputSize(height=image_size.height, width=image_size.width))
    attachment = _ModuleAttachment(key=_IMAGE_MODULE_INFO, value=size.SerializeToString(deterministic=True))
    attachments = meta_graph.collection_def[_ATTACHMENTS].bytes_list.value
    attachments.append(attachment.SerializeToString(deterministic=True))
    return meta_graph


def write(directory: Path, meta_graphs: Sequence[Any], values: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes a module in the TF1 Hub format.

    Args:
      directory: made if need be; must not hold a module yet.
      meta_graphs: the graph versions, each from `make_meta_graph`.
      values: the variables of all graph versions by name.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    directory.mkdir(parents=True, exist_ok=True)
    saved_model = saved_model_pb2.SavedModel(meta_graphs=meta_graphs)
    (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString(deterministic=True))
    write_variables(directory, values)
    definition = _ModuleDef(format=_FORMAT_V3)
    (directory / _MODULE_FILE).write_bytes(definition.SerializeToString(deterministic=True))


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


def _message_types() -> dict[str, Any]:
    """Makes the messages of the format, which tensorflow_hub no longer ships.

    They live in a pool of their own, lest they clash with another package's.
    """
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    messages = {
        "ModuleDef": (("format", field.TYPE_INT32, one), ("required_features", field.TYPE_STRING, many)),
        "ModuleAttachment": (("key", field.TYPE_STRING, one), ("value", field.TYPE_BYTES, one)),
        "InputSize": (("height", field.TYPE_INT32, one), ("width", field.TYPE_INT32, one)),
        "ImageModuleInfo": (("default_image_size", field.TYPE_MESSAGE, one),),
    }
    file = descriptor_pb2.FileDescriptorProto(name="hub_format.proto", package="hub_format", syntax="proto3")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (name, kind, label) in enumerate(fields, start=1):
            type_name = ".hub_format.InputSize" if kind == field.TYPE_MESSAGE else None
            message.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"hub_format.{name}")) for name in messages
    }


_types = _message_types()
_ModuleDef, _ModuleAttachment = _types["ModuleDef"], _types["ModuleAttachment"]
_InputSize, _ImageModuleInfo = _types["InputSize"], _types["ImageModuleInfo"]
