"""The messages of an ONNX file that say what a model is, without the package onnx.

Declared from the public schema (onnx/onnx.proto3) as far as they are read here; protobuf skips the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pipeline.core.protobuf import message_classes

_DECLARATION = """
    message Entry { string key = 1; string value = 2; }
    message Dimension { oneof value { int64 dim_value = 1; string dim_param = 2; } }
    message Shape { repeated Dimension dim = 1; }
    message TensorType { int32 elem_type = 1; Shape shape = 2; }
    message Type { TensorType tensor_type = 1; }
    message ValueInfo { string name = 1; Type type = 2; }
    message Tensor {
        int32 data_type = 2;
        string name = 8;
        repeated Entry external_data = 13;
        int32 data_location = 14;
    }
    message SparseTensor { Tensor values = 1; Tensor indices = 2; }
    message Attribute {
        Tensor t = 5;
        Graph g = 6;
        repeated Tensor tensors = 10;
        repeated Graph graphs = 11;
        SparseTensor sparse_tensor = 22;
        repeated SparseTensor sparse_tensors = 23;
    }
    message Node { string name = 3; string op_type = 4; repeated Attribute attribute = 5; string domain = 7; }
    message Graph {
        repeated Node node = 1;
        string name = 2;
        repeated Tensor initializer = 5;
        repeated ValueInfo input = 11;
        repeated ValueInfo output = 12;
        repeated SparseTensor sparse_initializer = 15;
    }
    message Function { string name = 1; repeated Node node = 7; string domain = 10; }
    message Model { int64 ir_version = 1; string producer_name = 2; Graph graph = 7; repeated Function functions = 25; }
"""

EXTERNAL = 1
"""`TensorProto.DataLocation.EXTERNAL`: the values are in another file."""

DTYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
"""Data types by their number in `TensorProto.DataType`."""


def parse_model(data: bytes) -> Any:
    """Returns the message in an ONNX file.

    Raises:
      google.protobuf.message.DecodeError: the bytes hold no such message.
    """
    return _model_class().FromString(data)


@functools.cache
def _model_class() -> Any:
    return message_classes("pipeline.onnx", _DECLARATION)["Model"]
