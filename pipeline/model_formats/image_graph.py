"""The function of a model that is a graph with named inputs and outputs, adapted to take float32 NHWC images.

Adapted as `pipeline.savedmodel.freezing` adapts SavedModels: for OpenVINO by operations around the network, for a
reference by NumPy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import ModuleError
from pipeline.model_formats.openvino_package import OpenVINOError, import_openvino
from pipeline.savedmodel.module import TensorInfo
from pipeline.savedmodel.signatures import LEVEL_PARTS, LEVELS, ImageSignature, feature_axis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUNCTION = "default"
"""Name of the one signature of such a model."""

_ELEMENT_TYPES = {"float16": "f16", "bfloat16": "bf16", "float64": "f64", "uint8": "u8"}


def with_channels(inputs: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Returns inputs whose images have 3 channels on the second axis, if no axis has a declared number of channels.

    NCHW is the layout of ONNX's and OpenVINO's operations, and some tools export models with all axes free.
    """

    def fixed(tensor: TensorInfo) -> TensorInfo:
        shape = tensor.shape
        if shape is None or len(shape) != 4 or 3 in shape or shape[1] is not None:
            return tensor
        return dataclasses.replace(tensor, shape=(shape[0], 3, *shape[2:]))

    return {key: fixed(tensor) for key, tensor in inputs.items()}


def read_function(path: Path, signature: ImageSignature) -> Any:
    """Returns the `openvino.Model` of a function; see `Network.openvino_model`.

    Other outputs, and what only they need, are left out. OpenVINO loads no library that a model names: it knows its own
    operations only.

    Raises:
      OpenVINOError: the network keeps a state between calls, or an output has more than one vector for an image.
      Exception: one of `openvino_errors`; OpenVINO cannot read the model, or it does not take images of this size.
    """
    import numpy as np

    openvino = import_openvino()
    ops = openvino.opset13
    model = openvino.Core().read_model(path)
    if model.get_variables():
        raise OpenVINOError(f"{path} keeps a state between calls; expected a model that computes each image by itself")
    count, height, width = signature.fixed_batch_size or 1, signature.height, signature.width
    shape = [count, 3, height, width] if signature.layout == "NCHW" else [count, height, width, 3]
    image = _find(model.inputs, signature.input_key)
    model.reshape({image: openvino.PartialShape(shape)})

    images = ops.parameter([count, height, width, 3], np.float32, name="images")
    image.replace(_fed(ops, images, signature).output(0))
    for switch in signature.switches:
        _find(model.inputs, switch).replace(ops.constant(np.array(False)).output(0))

    output = _find([output.get_node().input_value(0) for output in model.outputs], signature.output_key)
    result = openvino.Model([ops.result(_pooled(ops, output, signature))], [images], model.get_friendly_name())
    result.validate_nodes_and_infer_types()
    return result


def _find(tensors: Iterable[Any], key: str) -> Any:
    """Returns the tensor of a name; a tensor without one has that of its node."""
    for tensor in tensors:
        names = tensor.get_names() or {tensor.get_node().get_friendly_name()}
        if key in names:
            return tensor
    raise OpenVINOError(f"OpenVINO finds no tensor '{key}' in the model, which declares it; is the model complete?")


def _fed(ops: Any, images: Any, signature: ImageSignature) -> Any:
    import numpy as np

    node = images
    if signature.dtype == "uint8":
        parts = ops.round(ops.multiply(node, ops.constant(np.float32(LEVELS * LEVEL_PARTS))), "half_to_even")
        node = ops.round(ops.divide(parts, ops.constant(np.float32(LEVEL_PARTS))), "half_to_even")
        node = ops.clamp(node, 0.0, 255.0)
    if signature.layout == "NCHW":
        node = ops.transpose(node, ops.constant(np.array([0, 3, 1, 2])))
    return node if signature.dtype == "float32" else ops.convert(node, _ELEMENT_TYPES[signature.dtype])


def _pooled(ops: Any, output: Any, signature: ImageSignature) -> Any:
    import numpy as np

    if output.get_element_type().to_dtype() != np.float32:
        output = ops.convert(output, "f32").output(0)
    shape = output.get_partial_shape()
    if not shape.is_static:
        raise OpenVINOError(
            f"output '{signature.output_key}' has shape {shape}, which depends on the image; choose another "
            "--output_key"
        )
    axes = tuple(shape.to_shape())
    if signature.pooling == "cls":
        return ops.gather(output, ops.constant(np.array(0)), ops.constant(np.array(1)))
    if signature.pooling == "mean":
        return ops.reduce_mean(output, ops.constant(np.array(_places(len(axes), signature))))
    if len(axes) == 2:
        return output
    _check_vectors(axes, signature)
    return ops.reshape(output, ops.constant(np.array([axes[0], -1])), special_zero=False)


def _places(rank: int, signature: ImageSignature) -> tuple[int, ...]:
    kept = feature_axis(rank, signature.layout)
    return tuple(axis for axis in range(1, rank) if axis != kept)


def _check_vectors(shape: tuple[int, ...], signature: ImageSignature) -> None:
    if signature.pooling is None and (len(shape) < 2 or sum(length != 1 for length in shape[1:]) > 1):
        raise ModuleError(
            f"output '{signature.output_key}' has shape {list(shape)}; expected one vector an image; choose another "
            "--output_key, or say --pooling=mean, --pooling=cls or --pooling=flatten"
        )


def fed_array(images: NDArray[np.float32], signature: ImageSignature) -> NDArray[Any]:
    """Returns images as a model takes them.

    Args:
      images: float32 [N, height, width, 3], as the function takes them; in [0, 1] for an input of uint8.
      signature: the function; its dtype is one of NumPy's.
    """
    import numpy as np

    values: NDArray[Any] = images
    if signature.dtype == "uint8":
        values = np.rint(np.rint(images * np.float32(LEVELS * LEVEL_PARTS)) / np.float32(LEVEL_PARTS)).clip(0, 255)
    if signature.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values.astype(signature.dtype))


def pooled_array(output: NDArray[Any], signature: ImageSignature) -> NDArray[np.float32]:
    """Returns the vectors float32 [N, D] of a model's output.

    Raises:
      ModuleError: the output has more than one vector for an image.
    """
    import numpy as np

    values: NDArray[np.float32] = output.astype(np.float32)
    if signature.pooling == "cls":
        return values[:, 0]
    if signature.pooling == "mean":
        return np.asarray(values.mean(axis=_places(values.ndim, signature)), np.float32)
    _check_vectors(values.shape, signature)
    return values.reshape(len(values), -1)
