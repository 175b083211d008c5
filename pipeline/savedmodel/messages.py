"""The messages of `saved_model.pb` that say what a module is, without TensorFlow.

Declared from the public schema (tensorflow/core/protobuf/saved_model.proto, meta_graph.proto, saved_object_graph.proto
and tensorflow/core/framework/graph.proto) as far as they are read here. Values of constants and defaults of signatures
are messages that stay encoded; bytes and a message are the same on the wire. Reading a module this way takes
milliseconds, importing TensorFlow for it seconds.
"""

from __future__ import annotations

import functools
from typing import Any

from pipeline.core.protobuf import message_classes

_DECLARATION = """
    message Dim { int64 size = 1; }
    message TensorShape { repeated Dim dim = 2; bool unknown_rank = 3; }
    message TensorInfo { string name = 1; int32 dtype = 2; TensorShape tensor_shape = 3; }
    message SignatureDef {
        map<string, TensorInfo> inputs = 1;
        map<string, TensorInfo> outputs = 2;
        map<string, bytes> defaults = 4;
    }
    message NodeList { repeated string value = 1; }
    message BytesList { repeated bytes value = 1; }
    message CollectionDef { NodeList node_list = 1; BytesList bytes_list = 2; }
    message MetaInfo { repeated string tags = 4; }
    message Function { string name = 1; }
    message AttrList { repeated bytes s = 2; repeated Function func = 9; }
    message Attr {
        bytes s = 2;
        AttrList list = 1;
        Function func = 10;
        string placeholder = 9;
        bytes tensor = 8;
    }
    message Node { string name = 1; string op = 2; repeated string input = 3; map<string, Attr> attr = 5; }
    message ArgDef { string name = 1; }
    message OpDef { string name = 1; repeated ArgDef input_arg = 2; }
    message FunctionDef { OpDef signature = 1; repeated Node node_def = 3; }
    message FunctionLibrary { repeated FunctionDef function = 1; }
    message GraphDef { repeated Node node = 1; FunctionLibrary library = 2; }
    message SaverDef { string save_tensor_name = 2; string restore_op_name = 3; }
    message AssetFile { TensorInfo tensor_info = 1; string filename = 2; }
    message SavedAsset { int32 asset_file_def_index = 1; }
    message SavedObject { SavedAsset asset = 5; }
    message ConcreteFunction { repeated int32 bound_inputs = 2; }
    message ObjectGraph {
        repeated SavedObject nodes = 1;
        map<string, ConcreteFunction> concrete_functions = 2;
    }
    message MetaGraph {
        MetaInfo meta_info_def = 1;
        GraphDef graph_def = 2;
        SaverDef saver_def = 3;
        map<string, CollectionDef> collection_def = 4;
        map<string, SignatureDef> signature_def = 5;
        repeated AssetFile asset_file_def = 6;
        ObjectGraph object_graph_def = 7;
    }
    message SavedModel { repeated MetaGraph meta_graphs = 2; }
"""

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
    return message_classes("pipeline.saved_model", _DECLARATION)["SavedModel"]
