"""The start of a network that OpenVINO reads: what `pipeline.hub.network_start` finds in TensorFlow's graphs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.hub.network_start import BatchStatistics, Compute, NetworkStart, in_calls
from pipeline.model_formats.openvino_package import import_openvino

_PASSING = {"Convert", "Transpose", "Pad"}
_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
_MEAN, _VARIANCE = 3, 4
"""Inputs of `BatchNormInference`, as of OpenVINO's operation set 5."""


def read_openvino_start(model: Any) -> NetworkStart:
    """Returns what the start of a network shows.

    Args:
      model: an `openvino.Model`, float32 [N, height, width, 3] in and float32 [N, D] out. Its constants are folded.
    """
    import_openvino()
    from openvino import passes

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    scale, offset = np.ones(3), np.zeros(3)
    place = model.input(0).get_node().output(0)
    while (node := _next(place)) is not None:
        if node.get_type_name() not in _PASSING:
            step = _affine(node, place)
            if step is None:
                break
            scale, offset = scale * step[0], offset * step[0] + step[1]
        place = node.output(0)
    is_layer = node is not None and node.get_type_name() in _LAYERS
    statistics = _statistics(node.output(0), model.get_parameters()) if node is not None and is_layer else None
    return NetworkStart(scale, offset, statistics, _compiled(model))


def _next(place: Any) -> Any:
    """Returns the only node that takes the data; None if several or none do."""
    nodes = [port.get_node() for port in place.get_target_inputs()]
    nodes = [node for node in nodes if node.get_type_name() != "ShapeOf"]
    return nodes[0] if len(nodes) == 1 else None


def _constant(output: Any) -> NDArray[np.float64] | None:
    node = output.get_node()
    while node.get_type_name() == "Convert":  # weights of half precision
        node = node.input_value(0).get_node()
    return np.asarray(node.get_data(), np.float64) if node.get_type_name() == "Constant" else None


def _is_constant(output: Any) -> bool:
    return _constant(output) is not None


def _affine(node: Any, place: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Returns the scale and the offset, [3] each, of a step with a constant; None for any other step."""
    kind = node.get_type_name()
    if kind not in ("Multiply", "Divide", "Add", "Subtract"):
        return None
    index = 0 if node.input_value(0) == place else 1
    constant = _constant(node.input_value(1 - index))
    if constant is None or constant.size not in (1, 3) or (index == 1 and kind == "Divide"):
        return None
    values = np.broadcast_to(constant.reshape(-1), 3)
    if kind == "Multiply":
        return values, np.zeros(3)
    if kind == "Divide":
        return (1 / values, np.zeros(3)) if values.all() else None
    if kind == "Subtract":
        return (np.ones(3), -values) if index == 0 else (-np.ones(3), values)
    return np.ones(3), values


def _statistics(place: Any, parameters: list[Any]) -> BatchStatistics | None:
    """Returns the statistics of the batch normalisation after a layer, and perhaps its bias; None if there is none."""
    node = _next(place)
    if node is not None and node.get_type_name() == "Add" and any(map(_is_constant, node.input_values())):
        place = node.output(0)
        node = _next(place)
    if node is None or node.get_type_name() != "BatchNormInference":
        return None
    mean, variance = (_constant(node.input_value(index)) for index in (_MEAN, _VARIANCE))
    if mean is None or variance is None or not (variance > 0).all():
        return None
    openvino = import_openvino()
    start = openvino.Model([openvino.opset13.result(place)], parameters, "start")
    return BatchStatistics(mean.reshape(-1), variance.reshape(-1), _compiled(start), channel_axis=1)


def _compiled(model: Any) -> Compute:
    """Returns the function of a model for any number of images; it compiles the model at the first call."""

    @functools.cache
    def compiled() -> Any:
        return import_openvino().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    return in_calls(
        lambda images: np.array(compiled()([images])[0], np.float32),
        model.input(0).get_partial_shape()[0].get_length(),
    )
