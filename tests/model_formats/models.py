"""Small ONNX models and OpenVINO IR for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATA = Path(__file__).parent / "data"
CNN = DATA / "small_cnn.onnx"
VIT = DATA / "clip_vit" / "model.onnx"
SIZE = 16
NETWORK_SIZE = 32


def write_onnx(
    path: Path,
    *,
    layout: str = "NCHW",
    dtype: int = TensorProto.FLOAT,
    batch: int | str = "batch",
    size: int | str = SIZE,
    channels: int | str = 3,
    domain: str = "",
    operator: str = "Relu",
    output_shape: tuple[int | str, ...] | None = None,
    tokens: bool = False,
    switch: str | None = None,
    external: str | None = None,
) -> Path:
    """Writes a model of one convolution and one operator; its vectors are the means of the 8 channels.

    Args:
      path: of the file.
      layout: of the input.
      dtype: of the input; a uint8 input is divided by 255 first.
      batch: length of the first axis.
      size: height and width.
      channels: length of the axis of colours.
      domain: of the operator after the convolution.
      operator: its name.
      output_shape: the declared shape of the output.
      tokens: the output is [N, tokens, 8], without the mean.
      switch: the name of a further input, which adds 1 to all values if it is true.
      external: the name of a file for the weights.
    """
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    axes = [channels, size, size] if layout == "NCHW" else [size, size, channels]
    image = helper.make_tensor_value_info("images", dtype, [batch, *axes])
    nodes = [helper.make_node("Cast", ["images"], ["x0"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Div", ["x0", "scale"], ["x1"]))
    nodes.append(helper.make_node("Transpose", ["x1"], ["x2"], perm=[0, 1, 2, 3] if layout == "NCHW" else [0, 3, 1, 2]))
    nodes.append(helper.make_node("Conv", ["x2", "weights"], ["x3"], strides=[2, 2]))
    nodes.append(helper.make_node(operator, ["x3"], ["x4"], name="middle", domain=domain))
    if tokens:
        nodes.append(helper.make_node("Reshape", ["x4", "by_channel"], ["x5"]))
        nodes.append(helper.make_node("Transpose", ["x5"], ["vectors"], perm=[0, 2, 1]))
    else:
        nodes.append(helper.make_node("GlobalAveragePool", ["x4"], ["vectors"]))
    inputs = [image]
    if switch is not None:
        inputs.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        nodes[-1].output[0] = "x6"
        nodes.append(helper.make_node("Cast", [switch], ["x7"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", ["x6", "x7"], ["vectors"]))
    shape = output_shape or ((batch, 49, 8) if tokens else (batch, 8, 1, 1))
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.float32(255 if dtype == TensorProto.UINT8 else 1), "scale"),
            numpy_helper.from_array(np.array([0, 8, -1]), "by_channel"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external is None:
        onnx.save(model, path)
    else:
        (path.parent / external).parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    return path


def network_weights() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the weights [16, 3, 3, 3] and the bias [16] of the convolution of `write_network`, with a stride of 2."""
    random = np.random.default_rng(0)
    weights, bias = (random.normal(size=shape).astype(np.float32) for shape in ((16, 3, 3, 3), 16))
    return weights, bias


def write_network(
    path: Path,
    *,
    steps: Sequence[tuple[str, Any]] = (),
    statistics: tuple[Any, Any] | None = None,
    batch: int | str = "batch",
) -> Path:
    """Writes a network of scaling steps, a convolution, a batch normalisation with these statistics, and a mean.

    Args:
      path: of the file.
      steps: operators and their constants.
      statistics: mean and variance of each channel of the convolution; None for no batch normalisation.
      batch: number of images of a call.
    """
    weights, bias = network_weights()
    nodes, tensors, name = [], [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")], "images"
    for number, (operator, constant) in enumerate(steps):
        tensors.append(numpy_helper.from_array(np.asarray(constant, np.float32), f"constant{number}"))
        nodes.append(helper.make_node(operator, [name, f"constant{number}"], [f"step{number}"]))
        name = f"step{number}"
    nodes.append(helper.make_node("Conv", [name, "w", "b"], ["convolved"], strides=[2, 2]))
    name = "convolved"
    if statistics is not None:
        ones = np.ones(16, np.float32)
        for key, values in zip(("gamma", "beta", "mean", "variance"), (ones, 0 * ones, *statistics), strict=True):
            tensors.append(numpy_helper.from_array(np.asarray(values, np.float32), key))
        nodes.append(helper.make_node("BatchNormalization", [name, "gamma", "beta", "mean", "variance"], ["normal"]))
        name = "normal"
    nodes.append(helper.make_node("Relu", [name], ["active"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["active"], ["vectors"]))
    shapes = [[batch, 3, NETWORK_SIZE, NETWORK_SIZE], [batch, 16, 1, 1]]
    image, vectors = (
        helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
        for key, shape in zip(("images", "vectors"), shapes, strict=True)
    )
    graph = helper.make_graph(nodes, "graph", [image], [vectors], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_ir(path: Path, source: Path) -> Path:
    """Writes an ONNX model as OpenVINO IR."""
    from pipeline.model_formats.openvino_package import import_openvino

    openvino = import_openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)
    return path


def runtime_vectors(path: Path, images: np.ndarray[Any, Any], output: str | None = None) -> np.ndarray[Any, Any]:
    """Returns the vectors [N, D] that ONNX Runtime computes.

    Args:
      path: of the model.
      images: as the model takes them.
      output: name of the output; default: the only one.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (item.name for item in session.get_inputs())
    (values,) = session.run([output or session.get_outputs()[0].name], {name: images})
    return values.reshape(len(values), -1)
