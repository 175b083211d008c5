"""A function of a model file as an OpenVINO model that takes one float32 NHWC image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.errors import ModuleError
from pipeline.model_formats.graph_function import ImageInput
from pipeline.model_formats.openvino_package import import_openvino
from pipeline.savedmodel.module import ImageSignature

_ELEMENT_TYPES = {"float16": "f16", "float32": "f32", "uint8": "u8"}


def read_function(path: Path, image: ImageInput, signature: ImageSignature) -> Any:
    """Returns the `openvino.Model` of a function: input float32 [1, height, width, 3] in [0, 1], one float32 output.

    Operations before the network adapt the image: to uint8 from 0 to 255 or to float16, to NCHW, and, for a network
    with a fixed number of images, to copies of the image. Other outputs, and what only they need, are left out.

    OpenVINO loads no library that a model names: it knows its own operations only.

    Raises:
      ModuleError: the network keeps a state between calls.
      Exception: one of `openvino_errors`; OpenVINO cannot read the model, or it does not take images of this size.
    """
    import numpy as np

    openvino = import_openvino()
    ops = openvino.opset13
    model = openvino.Core().read_model(path)
    if model.get_variables():
        raise ModuleError(f"{path} keeps a state between calls; expected a model that computes each image by itself")
    batch_size = image.batch_size or 1
    chosen = [signature.height, signature.width]
    shape = [batch_size, 3, *chosen] if image.layout == "NCHW" else [batch_size, *chosen, 3]
    model.reshape(shape)

    images = ops.parameter([1, *chosen, 3], np.float32, name="images")
    node = images
    if image.dtype == "uint8":
        node = ops.round(ops.multiply(node, ops.constant(np.float32(255))), "half_to_even")
        node = ops.clamp(node, 0.0, 255.0)
    if image.layout == "NCHW":
        node = ops.transpose(node, ops.constant(np.array([0, 3, 1, 2])))
    if batch_size > 1:
        node = ops.tile(node, ops.constant(np.array([batch_size, 1, 1, 1])))
    if image.dtype != "float32":
        node = ops.convert(node, _ELEMENT_TYPES[image.dtype])
    _find(model.inputs, image.key).replace(node.output(0))

    output = _find([output.get_node().input_value(0) for output in model.outputs], signature.output_key)
    if batch_size > 1:
        zero, one = (ops.constant(np.array([value])) for value in (0, 1))
        output = ops.slice(output, zero, one, one, zero).output(0)
    if output.get_element_type() != openvino.Type.f32:
        output = ops.convert(output, "f32").output(0)
    result = openvino.Model([ops.result(output)], [images], model.get_friendly_name())
    result.validate_nodes_and_infer_types()
    return result


def _find(tensors: Iterable[Any], key: str) -> Any:
    """Returns the tensor of a name; a tensor without one has that of its node."""
    for tensor in tensors:
        names = tensor.get_names() or {tensor.get_node().get_friendly_name()}
        if key in names:
            return tensor
    raise ModuleError(f"OpenVINO finds no tensor '{key}' in the model, which declares it; is the model complete?")
