"""The messages of `saved_model.pb` that say what a module is, without TensorFlow.

Declared from the public schema (tensorflow/core/protobuf/saved_model.proto, meta_graph.proto, saved_object_graph.proto
and tensorflow/core/framework/graph.proto) as far as they are read here; protobuf skips the rest, above all the values
of constants. Reading a module this way takes milliseconds, importing TensorFlow for it seconds.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "pipeline.saved_model"

# Message: its fields as (name, number, type), where a type is a scalar's name, a message's, or a map's `map<value>`
# with string keys; `*` marks a repeated one.
_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Dim": (("size", 1, "int64"),),
    "TensorShape": (("dim", 2, "*Dim"), ("unknown_rank", 3, "bool")),
    "TensorInfo": (("name", 1, "string"), ("dtype", 2, "int32"), ("tensor_shape", 3, "TensorShape")),
    "SignatureDef": (("inputs", 1, "map<TensorInfo>"), ("outputs", 2, "map<TensorInfo>")),
    "NodeList": (("value", 1, "*string"),),
    "BytesList": (("value", 1, "*bytes"),),
    "CollectionDef": (("node_list", 1, "NodeList"), ("bytes_list", 2, "BytesList")),
    "MetaInfo": (("tags", 4, "*string"),),
    "Function": (("name", 1, "string"),),
    "AttrList": (("s", 2, "*bytes"), ("func", 9, "*Function")),
    "Attr": (("s", 2, "bytes"), ("list", 1, "AttrList"), ("func", 10, "Function"), ("placeholder", 9, "string")),
    "Node": (
        ("name", 1, "string"),
        ("op", 2, "string"),
        ("input", 3, "*string"),
        ("attr", 5, "map<Attr>"),
    ),
    "ArgDef": (("name", 1, "string"),),
    "OpDef": (("name", 1, "string"), ("input_arg", 2, "*ArgDef")),
    "FunctionDef": (("signature", 1, "OpDef"), ("node_def", 3, "*Node")),
    "FunctionLibrary": (("function", 1, "*FunctionDef"),),
    "GraphDef": (("node", 1, "*Node"), ("library", 2, "FunctionLibrary")),
    "SaverDef": (("save_tensor_name", 2, "string"), ("restore_op_name", 3, "string")),
    "AssetFile": (("tensor_info", 1, "TensorInfo"), ("filename", 2, "string")),
    "SavedAsset": (("asset_file_def_index", 1, "int32"),),
    "SavedObject": (("asset", 5, "SavedAsset"),),
    "ConcreteFunction": (("bound_inputs", 2, "*int32"),),
    "ObjectGraph": (("nodes", 1, "*SavedObject"), ("concrete_functions", 2, "map<ConcreteFunction>")),
    "MetaGraph": (
        ("meta_info_def", 1, "MetaInfo"),
        ("graph_def", 2, "GraphDef"),
        ("saver_def", 3, "SaverDef"),
        ("collection_def", 4, "map<CollectionDef>"),
        ("signature_def", 5, "map<SignatureDef>"),
        ("asset_file_def", 6, "*AssetFile"),
        ("object_graph_def", 7, "ObjectGraph"),
    ),
    "SavedModel": (("meta_graphs", 2, "*MetaGraph"),),
}

# tensorflow/core/framework/types.proto; a reference to a type is its number plus 100.
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
}


def parse_saved_model(data: bytes) -> Any:
    """Returns the message in a file `saved_model.pb`: `meta_graphs` with their tags, signatures and nodes.

    Raises:
      google.protobuf.message.DecodeError: the bytes hold no such message.
    """
    return _saved_model_class().FromString(data)


def dtype_name(number: int) -> str:
    """Returns TensorFlow's name of a data type, such as `float32`, from its number in a message."""
    name = _DTYPES.get(number % 100)
    if name is None:
        return f"type {number}"
    return f"{name}_ref" if number > 100 else name


@functools.cache
def _saved_model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="pipeline/saved_model.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            _add_field(message, field_name, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.SavedModel"))


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    label = proto.LABEL_OPTIONAL
    if kind.startswith("map<"):
        # On the wire, a map is repeated entries of key and value.
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name, options=descriptor_pb2.MessageOptions(map_entry=True))
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind[4:-1])
        kind, label = f"{message.name}.{entry_name}", proto.LABEL_REPEATED
    elif kind.startswith("*"):
        kind, label = kind[1:], proto.LABEL_REPEATED
    scalar = getattr(proto, f"TYPE_{kind.upper()}", None)
    type_name = f".{_PACKAGE}.{kind}" if scalar is None else None
    message.field.add(name=name, number=number, label=label, type=scalar or proto.TYPE_MESSAGE, type_name=type_name)
