"""The start of TensorFlow's graph of a network: constants at its input, and the statistics of its first batch
normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.savedmodel.freezing import FrozenGraph

_PASSING = {"Identity", "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape", "Cast"}
_PADDING = {"Pad", "PadV2", "MirrorPad", "Transpose"}
_LAYERS = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
_SIZE_OPERATIONS = {"Shape", "ShapeN", "Size", "Rank", "NoOp"}


@dataclass(frozen=True)
class BatchStatistics:
    """The first batch normalisation, directly after the first layer.

    Attributes:
      mean: of training, float64 [C].
      variance: of training, float64 [C]; positive.
      outputs: returns the first layer's output, float32, for an input float32 [N, height, width, 3].
      channel_axis: the axis of the channels in the outputs.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    outputs: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    channel_axis: int

    @property
    def is_untrained(self) -> bool:
        """Whether the statistics are those of a new layer: mean 0 and variance 1 everywhere."""
        return not self.mean.any() and bool(np.abs(self.variance - 1).max() < 0.01)


@dataclass(frozen=True)
class NetworkStart:
    """What the start of a network's graph shows.

    Attributes:
      scale: what constants multiply the input with before the first layer, float64 [3].
      offset: what they add after that, float64 [3].
      statistics: of the first batch normalisation; None if there is none after the first layer.
      vectors: returns the whole network's vectors, float32 [N, D], for an input float32 [N, height, width, 3]. Raises
        a `ModuleError` if they cannot be computed.
    """

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    statistics: BatchStatistics | None
    vectors: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    @property
    def has_constants(self) -> bool:
        """Whether constants change the input before the first layer."""
        return bool((self.scale != 1).any() or self.offset.any())


Compute = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def read_start(frozen: FrozenGraph, call_size: int | None = None) -> NetworkStart:
    """Returns what the start of a frozen network shows.

    Args:
      frozen: the network.
      call_size: the number of images that each call takes; None for any number.
    """
    return _Walk(frozen, call_size).read()


def in_calls(compute: Compute, call_size: int | None) -> Compute:
    """Returns a function of any number of images from one of a fixed number; the last call is filled up."""
    if call_size is None:
        return compute

    def compute_all(images: NDArray[np.float32]) -> NDArray[np.float32]:
        starts = range(0, len(images), call_size)
        parts = [compute(images.take(range(first, first + call_size), axis=0, mode="wrap")) for first in starts]
        return np.concatenate(parts)[: len(images)]

    return compute_all


class _Walk:
    """A walk from the input along the only path that the data takes."""

    def __init__(self, frozen: FrozenGraph, call_size: int | None) -> None:
        self._frozen = frozen
        self._call_size = call_size
        self._graph = frozen.function.graph.as_graph_def()
        for node in self._graph.node:  # An order of execution would tie each constant to the input.
            data = [text for text in node.input if not text.startswith("^")]
            del node.input[:]
            node.input.extend(data)
        self._nodes: Mapping[str, Any] = {node.name: node for node in self._graph.node}
        self._input = frozen.input_name
        self._consumers: dict[str, list[Any]] = {}
        for node in self._graph.node:
            for name in {_node_name(text) for text in node.input}:
                self._consumers.setdefault(name, []).append(node)
        self._from_input = self._reached()

    def read(self) -> NetworkStart:
        """Walks to the first layer, and to the batch normalisation after it."""
        scale, offset = np.ones(3), np.zeros(3)
        place = self._input
        while (node := self._next(place)) is not None:
            if node.op not in _PASSING | _PADDING:
                step = self._affine(node, place)
                if step is None:
                    break
                # One constant for all channels, or one for each; others are no scaling of channels.
                scale, offset = scale * step[0], offset * step[0] + step[1]
            place = node.name
        is_layer = node is not None and node.op in _LAYERS
        vectors = in_calls(self._frozen.compute, self._call_size)
        return NetworkStart(scale, offset, self._statistics(node) if is_layer else None, vectors)

    def _reached(self) -> set[str]:
        reached, waiting = {self._input}, [self._input]
        while waiting:
            for node in self._consumers.get(waiting.pop(), ()):
                if node.name not in reached and node.op not in _SIZE_OPERATIONS:
                    reached.add(node.name)
                    waiting.append(node.name)
        return reached

    def _next(self, place: str) -> Any:
        """Returns the only node that takes the data; None if several or none do."""
        nodes = [node for node in self._consumers.get(place, ()) if node.op not in _SIZE_OPERATIONS]
        return nodes[0] if len(nodes) == 1 else None

    def _affine(self, node: Any, place: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Returns the scale and the offset, [3] each, of a step with a constant; None for any other step."""
        if node.op not in ("Mul", "RealDiv", "AddV2", "Add", "BiasAdd", "Sub"):
            return None
        index = next(index for index, text in enumerate(node.input) if _node_name(text) == place)
        other = node.input[1 - index]
        if _node_name(other) in self._from_input:
            return None
        constant = self._evaluate(other)
        if constant is None or constant.size not in (1, 3) or (node.op == "RealDiv" and index == 1):
            return None
        values = np.broadcast_to(constant.astype(np.float64).reshape(-1), 3)
        if node.op == "Mul":
            return values, np.zeros(3)
        if node.op == "RealDiv":
            return (1 / values, np.zeros(3)) if values.all() else None
        if node.op == "Sub":
            return (np.ones(3), -values) if index == 0 else (-np.ones(3), values)
        return np.ones(3), values

    def _statistics(self, layer: Any) -> BatchStatistics | None:
        place = layer
        node = self._next(layer.name)
        while node is not None and (node.op in _PASSING or node.op == "BiasAdd"):
            place = node
            node = self._next(node.name)
        if node is None:
            return None
        if node.op.startswith("FusedBatchNorm"):
            mean, variance = (self._evaluate(node.input[index]) for index in (3, 4))
        elif node.op == "Mul":
            mean, variance = self._expanded(node, place.name)
        else:
            return None
        if mean is None or variance is None or mean.size != variance.size or not (variance > 0).all():
            return None
        has_channels_last = layer.op != "MatMul" and layer.attr["data_format"].s != b"NCHW"
        return BatchStatistics(
            mean.astype(np.float64).reshape(-1),
            variance.astype(np.float64).reshape(-1),
            self._function(place.name),
            3 if has_channels_last else 1,
        )

    def _expanded(self, multiply: Any, place: str) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Returns mean and variance of `tf.nn.batch_normalization`: x * inv + (offset - mean * inv)."""
        add = self._next(multiply.name)
        if add is None or add.op not in ("AddV2", "Add", "Sub"):
            return None, None
        inverse = self._origin(next(text for text in multiply.input if _node_name(text) != place))
        shift = self._origin(next(text for text in add.input if _node_name(text) != multiply.name))
        root = inverse if inverse.op == "Rsqrt" else self._operand(inverse, "Rsqrt")
        product = shift if shift.op == "Mul" else self._operand(shift, "Mul")
        if root is None or product is None:
            return None, None
        means = [text for text in product.input if self._origin(text).name != inverse.name]
        if len(means) != 1:
            return None, None
        return self._evaluate(means[0]), self._evaluate(root.input[0])

    def _origin(self, text: str) -> Any:
        """Returns the node that makes a value, before nodes that pass it on."""
        node = self._nodes[_node_name(text)]
        while node.op in _PASSING | {"Reshape"}:
            node = self._nodes[_node_name(node.input[0])]
        return node

    def _operand(self, node: Any, operation: str) -> Any:
        origins = [self._origin(text) for text in node.input]
        return next((origin for origin in origins if origin.op == operation), None)

    def _evaluate(self, text: str) -> NDArray[Any] | None:
        """Returns the value of a node that does not depend on the input."""
        if _node_name(text) in self._from_input:
            return None
        tensor = text if ":" in text else f"{text}:0"
        return np.asarray(self._imported().prune([], tensor)())

    def _function(self, name: str) -> Compute:
        import tensorflow as tf

        pruned = self._imported().prune([f"{self._input}:0"], f"{name}:0")
        return in_calls(lambda values: np.asarray(pruned(tf.constant(values))), self._call_size)

    def _imported(self) -> Any:
        import tensorflow as tf

        if not hasattr(self, "_wrapped"):
            self._wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(self._graph, name=""), [])
        return self._wrapped


def _node_name(text: str) -> str:
    return text.split(":")[0]
