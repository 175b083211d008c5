"""MobileNetV2 with the variable names and the arithmetic of TF-Slim.

The architecture is data: `Network` lists the convolutions with their shapes and strides. The list of variables, the
TensorFlow computation and any other computation (see `Network.walk`) are made from it.

The network is that of Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (arXiv:1801.04381,
table 2); names, rounding of widths, batch-norm constants and endpoints are those of TF-Slim's
`nets/mobilenet/mobilenet_v2.py`, so that its checkpoints fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.errors import ModuleError

DEPTH_MULTIPLIERS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
IMAGE_SIZES = (96, 128, 160, 192, 224)
BATCH_NORM_EPSILON = 0.001
BATCH_NORM_DECAY = 0.997
WEIGHT_DECAY = 4e-5
CLASSIFIER_KEEP_PROBABILITY = 0.8
SCOPE = "MobilenetV2"
CLASSIFIER_WEIGHTS = f"{SCOPE}/Logits/Conv2d_1c_1x1/weights"
CLASSIFIER_BIASES = f"{SCOPE}/Logits/Conv2d_1c_1x1/biases"

_STEM_WIDTH = 32
_HEAD_WIDTH = 1280
# Expansion factor, width before the depth multiplier, number of blocks, stride of the first one.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution (SAME padding, no bias) with its batch normalisation.

    Attributes:
      scope: variable scope, e.g. `MobilenetV2/expanded_conv_1/expand`.
      kernel_size: height and width of the kernel.
      stride: in both directions.
      in_channels: channels of the input.
      out_channels: channels of the output; `in_channels` for a depthwise convolution.
      depthwise: one 2-D kernel for each channel instead of a dense one.
      relu6: whether `min(max(x, 0), 6)` follows the normalisation.
    """

    scope: str
    kernel_size: int
    stride: int
    in_channels: int
    out_channels: int
    depthwise: bool
    relu6: bool

    @property
    def weights(self) -> str:
        """Name of the kernel's variable."""
        return f"{self.scope}/{'depthwise_weights' if self.depthwise else 'weights'}"

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """[height, width, in, out], or [height, width, channels, 1] for a depthwise kernel."""
        outputs = 1 if self.depthwise else self.out_channels
        return (self.kernel_size, self.kernel_size, self.in_channels, outputs)

    def batch_norm(self, name: str) -> str:
        """Name of the batch normalisation's variable `gamma`, `beta`, `moving_mean` or `moving_variance`."""
        return f"{self.scope}/BatchNorm/{name}"


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted residual: widen (`expand`), filter each channel (`depthwise`), narrow (`project`).

    Attributes:
      expand: None where the input is not widened (the first block).
      residual: whether the block's input is added to its output.
    """

    expand: Layer | None
    depthwise: Layer
    project: Layer
    residual: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the network: its name in a checkpoint, its shape, and whether gradients move it."""

    name: str
    shape: tuple[int, ...]
    trainable: bool


@dataclass(frozen=True, slots=True)
class Network:
    """One member of the family.

    Attributes:
      depth_multiplier: factor on the widths, one of `DEPTH_MULTIPLIERS`.
      image_size: height and width of the input in pixels, one of `IMAGE_SIZES`.
      stem: the first convolution.
      blocks: the inverted residuals, in order.
      head: the last convolution; its width is the dimension of the feature vector.
      num_classes: outputs of the classifier; 0 where there is none.
    """

    depth_multiplier: float
    image_size: int
    stem: Layer
    blocks: tuple[Block, ...]
    head: Layer
    num_classes: int = 0

    @property
    def name(self) -> str:
        """E.g. `mobilenet_v2_050_160`."""
        return f"mobilenet_v2_{round(self.depth_multiplier * 100):03d}_{self.image_size}"

    @property
    def num_features(self) -> int:
        """Dimension of the feature vector."""
        return self.head.out_channels

    def with_classifier(self, num_classes: int) -> Network:
        """Returns the same network with a classifier behind the feature vector."""
        return replace(self, num_classes=num_classes)

    def layers(self) -> Iterator[Layer]:
        """Yields the convolutions in the order of the computation."""
        yield self.stem
        for block in self.blocks:
            if block.expand:
                yield block.expand
            yield block.depthwise
            yield block.project
        yield self.head

    def variables(self) -> Iterator[Variable]:
        """Yields every variable, in the order of the computation."""
        for layer in self.layers():
            yield Variable(layer.weights, layer.weights_shape, trainable=True)
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                trainable = name in ("gamma", "beta")
                yield Variable(layer.batch_norm(name), (layer.out_channels,), trainable)
        if self.num_classes:
            yield Variable(CLASSIFIER_WEIGHTS, (1, 1, self.num_features, self.num_classes), trainable=True)
            yield Variable(CLASSIFIER_BIASES, (self.num_classes,), trainable=True)

    def regularized(self) -> Iterator[str]:
        """Yields the names of the kernels with an L2 loss: the dense ones."""
        yield from (layer.weights for layer in self.layers() if not layer.depthwise)
        if self.num_classes:
            yield CLASSIFIER_WEIGHTS

    def walk(self, images: Any, apply: Callable[[Layer, Any], Any]) -> dict[str, Any]:
        """Runs the convolutions over images, up to the last feature map.

        Args:
          images: the network's input; for TF-Slim's arithmetic in [-1, 1].
          apply: computes one layer's output from its input, both of a type that `+` adds.

        Returns:
          TF-Slim's endpoints: `layer_1` to `layer_19`, within blocks also `layer_N/expansion_output`,
          `layer_N/depthwise_output` and `layer_N/output`, and the last one again as `embedding`.
        """
        endpoints = {"layer_1": (x := apply(self.stem, images))}
        for number, block in enumerate(self.blocks, start=2):
            endpoint = f"layer_{number}"
            inner = x
            if block.expand:
                inner = endpoints[f"{endpoint}/expansion_output"] = apply(block.expand, inner)
            inner = endpoints[f"{endpoint}/depthwise_output"] = apply(block.depthwise, inner)
            inner = apply(block.project, inner)
            x = inner + x if block.residual else inner
            endpoints[endpoint] = endpoints[f"{endpoint}/output"] = x
        endpoints[f"layer_{len(self.blocks) + 2}"] = endpoints["embedding"] = apply(self.head, x)
        return endpoints


def mobilenet_v2(depth_multiplier: float, image_size: int) -> Network:
    """Returns the member of the family with this depth multiplier and image size, without a classifier.

    Raises:
      ModuleError: the family has no such member.
    """
    if depth_multiplier not in DEPTH_MULTIPLIERS or image_size not in IMAGE_SIZES:
        raise ModuleError(
            f"no MobileNetV2 with depth multiplier {depth_multiplier:g} and image size {image_size}: "
            f"choose a multiplier from {_listed(DEPTH_MULTIPLIERS)} and a size from {_listed(IMAGE_SIZES)}"
        )
    width = _round_width(_STEM_WIDTH * depth_multiplier)
    stem = Layer(f"{SCOPE}/Conv", 3, 2, 3, width, depthwise=False, relu6=True)
    blocks: list[Block] = []
    for expansion, stage_width, count, first_stride in _STAGES:
        out_width = _round_width(stage_width * depth_multiplier)
        for index in range(count):
            stride = first_stride if index == 0 else 1
            scope = f"{SCOPE}/expanded_conv_{len(blocks)}" if blocks else f"{SCOPE}/expanded_conv"
            blocks.append(_block(scope, width, out_width, expansion, stride))
            width = out_width
    # A multiplier below 1 leaves the last convolution, and with it the feature vector, as wide as it is.
    head_width = _round_width(_HEAD_WIDTH * max(1.0, depth_multiplier))
    head = Layer(f"{SCOPE}/Conv_1", 1, 1, width, head_width, depthwise=False, relu6=True)
    return Network(depth_multiplier, image_size, stem, tuple(blocks), head)


def from_name(name: str) -> Network:
    """Returns the network called `mobilenet_v2_MMM_SSS`: a hundred times the depth multiplier, and the image size.

    Raises:
      ModuleError: the family has no member of this name.
    """
    match = re.fullmatch(r"mobilenet_v2_(\d{3})_(\d{2,3})", name)
    known = {f"{round(multiplier * 100):03d}": multiplier for multiplier in DEPTH_MULTIPLIERS}
    if not match or match[1] not in known or match[2] not in map(str, IMAGE_SIZES):
        raise ModuleError(
            f"no built-in network is called {name!r}: expected mobilenet_v2_MULTIPLIER_SIZE with a multiplier from "
            f"{_listed(known)} and a size from {_listed(IMAGE_SIZES)}, such as mobilenet_v2_050_160"
        )
    return mobilenet_v2(known[match[1]], int(match[2]))


@dataclass(frozen=True)
class Outputs:
    """What `forward` computes.

    Attributes:
      features: float32 [batch, num_features].
      logits: float32 [batch, num_classes]; None without a classifier.
      endpoints: activations by TF-Slim's names: those of `Network.walk` and `global_pool`, float32
        [batch, height, width, channels]; with a classifier also `Logits` and `Predictions` (their softmax).
      updates: the operations that move the averages of the batch statistics; empty unless training.
    """

    features: Any
    logits: Any
    endpoints: Mapping[str, Any]
    updates: tuple[Any, ...]


def forward(network: Network, variables: Mapping[str, Any], images: Any, *, training: bool) -> Outputs:
    """Computes the network with TensorFlow, in a graph or a `tf.function`.

    Args:
      network: the architecture.
      variables: `tf.Variable`s by name, one for each of `network.variables()`.
      images: float32 [batch, image_size, image_size, 3], RGB in [0, 1].
      training: normalise with the statistics of the batch, and make the operations that average them.
    """
    import tensorflow as tf

    updates: list[Any] = []

    def apply(layer: Layer, x: Any) -> Any:
        with tf.name_scope(f"{layer.scope}/"):
            convolve = tf.raw_ops.DepthwiseConv2dNative if layer.depthwise else tf.raw_ops.Conv2D
            strides = [1, layer.stride, layer.stride, 1]
            x = convolve(input=x, filter=variables[layer.weights], strides=strides, padding="SAME")
            moving = [variables[layer.batch_norm(name)] for name in ("moving_mean", "moving_variance")]
            x, *statistics = tf.compat.v1.nn.fused_batch_norm(
                x,
                variables[layer.batch_norm("gamma")],
                variables[layer.batch_norm("beta")],
                *([] if training else moving),
                epsilon=BATCH_NORM_EPSILON,
                is_training=training,
            )
            if training:
                for average, statistic in zip(moving, statistics, strict=True):
                    with tf.name_scope("AssignMovingAvg"):
                        step = (average - statistic) * (1 - BATCH_NORM_DECAY)
                        updates.append(average.assign_sub(step, read_value=False))
            return tf.nn.relu6(x) if layer.relu6 else x

    with tf.name_scope("hub_input"):
        scaled = tf.subtract(tf.multiply(images, 2.0, name="Mul"), 1.0, name="Sub")
    with tf.name_scope(f"{SCOPE}/"):
        endpoints = network.walk(scaled, apply)
    with tf.name_scope(f"{SCOPE}/Logits/"):
        feature_map = endpoints["embedding"]
        window = feature_map.shape[1:3].as_list()
        pooled = tf.nn.avg_pool2d(feature_map, window, strides=1, padding="VALID", name="AvgPool")
    endpoints["global_pool"] = pooled
    with tf.name_scope("hub_output/feature_vector"):
        features = tf.squeeze(pooled, [1, 2], name="SpatialSqueeze")
    logits = None
    if network.num_classes:
        with tf.name_scope(f"{SCOPE}/Logits/"):
            if training:
                pooled = tf.nn.dropout(pooled, rate=1 - CLASSIFIER_KEEP_PROBABILITY, name="Dropout")
            kernel, bias = variables[CLASSIFIER_WEIGHTS], variables[CLASSIFIER_BIASES]
            logits = tf.nn.bias_add(tf.nn.conv2d(pooled, kernel, 1, "SAME"), bias)
            logits = endpoints["Logits"] = tf.squeeze(logits, [1, 2], name="Squeeze")
            endpoints["Predictions"] = tf.nn.softmax(logits, name="Predictions")
    return Outputs(features, logits, endpoints, tuple(updates))


def regularization_loss(name: str, kernel: Any) -> Any:
    """Returns the L2 loss (float32 scalar) that TF-Slim adds for a kernel in training.

    Args:
      name: one of `Network.regularized()`.
      kernel: its `tf.Variable`.
    """
    import tensorflow as tf

    with tf.name_scope(f"{name}/Regularizer"):
        return tf.multiply(WEIGHT_DECAY, tf.nn.l2_loss(kernel), name="l2_regularizer")


def count_parameters(network: Network) -> int:
    """Returns the number of values in the network's variables, moving averages included."""
    return sum(math.prod(variable.shape) for variable in network.variables())


def _block(scope: str, in_width: int, out_width: int, expansion: int, stride: int) -> Block:
    inner = in_width * expansion
    expand = None
    if expansion > 1:
        expand = Layer(f"{scope}/expand", 1, 1, in_width, inner, depthwise=False, relu6=True)
    depthwise = Layer(f"{scope}/depthwise", 3, stride, inner, inner, depthwise=True, relu6=True)
    project = Layer(f"{scope}/project", 1, 1, inner, out_width, depthwise=False, relu6=False)
    return Block(expand, depthwise, project, residual=stride == 1 and in_width == out_width)


def _round_width(width: float) -> int:
    """Rounds to the nearest multiple of 8 that is at least 8 and at least 90 % of `width`."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
