"""Loads the chosen function of a module, adapts it to images in and vectors out, and freezes it.

The adapter is part of the graph: each engine feeds every module alike.

```
images float32 [N, height, width, 3]  ->  cast, transpose  ->  the module's function  ->  cast, pool  ->  [N, D]
```
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow_hub
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import LEVEL_PARTS, LEVELS, ImageSignature, feature_axis
from pipeline.savedmodel.tensorflow_internals import freeze_variables


@dataclass(slots=True)
class TraceCounter:
    """Counts the times that TensorFlow runs a function's Python code to make a graph of it."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class FrozenGraph:
    """A function from images to vectors, whose variables are constants.

    Attributes:
      function: the TensorFlow function: float32 [N, H, W, 3] in, a list of one float32 [N, D] out. If the signature
        takes encoded images: strings [N] in.
      input_name: the name of the graph's placeholder, such as `images`.
      output_name: the name of the graph's result tensor, such as `Identity:0`.
      traces: counts how many times TensorFlow has traced the function.
      is_constant: whether the graph alone computes the vectors. False if the signature takes encoded images, or the
        vectors depend on a lookup table; only TensorFlow computes these.
      module: the loaded module, which holds the variables and tables of a graph that is not constant.
    """

    function: Any
    input_name: str
    output_name: str
    traces: TraceCounter
    is_constant: bool = True
    module: Any = None

    def compute(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the function's output for images: float32 [N, D], unless the module's output is no vector.

        Args:
          images: as `function` takes them.

        Raises:
          ModuleError: TensorFlow cannot compute the graph for these images.
        """
        import tensorflow as tf

        try:
            result = self.function(tf.constant(images))
        except tf.errors.OpError as error:
            raise ModuleError(f"TensorFlow cannot compute the module: {_one_line(error)}") from error
        vectors: NDArray[np.float32] = (result[0] if isinstance(result, list) else result).numpy()
        return vectors


def freeze(path: str, chosen: ImageSignature, batch_size: int | None = None) -> FrozenGraph:
    """Loads a module and returns its chosen function with all variables turned into constants.

    Only the operations that the chosen output needs are in the graph.

    Args:
      path: the module's directory.
      chosen: the function to freeze.
      batch_size: the fixed number of images N of a call, or None for any number. A function with a number of its own
        keeps that.

    Raises:
      ModuleError: the module cannot be loaded, or its function cannot be computed.
    """
    hub = import_tensorflow_hub()
    import tensorflow as tf

    tags = [] if hub_format.is_hub_module(path) else ["serve"]
    traces = TraceCounter()
    size = chosen.fixed_batch_size or batch_size
    spec = (
        tf.TensorSpec([size], tf.string, name="images")
        if chosen.is_encoded
        else tf.TensorSpec([size, chosen.height, chosen.width, 3], tf.float32, name="images")
    )
    try:
        module = hub.load(path, tags=tags)
    except Exception as error:  # TensorFlow raises whatever its reading of damaged files trips over.
        raise ModuleError(f"{path} cannot be loaded: {_one_line(error)}; is the module complete?") from error
    try:
        signature = module.signatures[chosen.signature]
        others = _other_inputs(path, chosen, signature)

        @tf.function(input_signature=[spec], autograph=False)
        def vectors(images: Any) -> Any:
            traces.count += 1
            outputs = signature(**{chosen.input_key: _fed(images, chosen)}, **others)
            return _pooled(outputs[chosen.output_key], chosen)

        function = vectors.get_concrete_function()
        frozen = None if chosen.is_encoded else freeze_variables(function)
    except Exception as error:
        raise ModuleError(
            f"{path} cannot be computed: signature '{chosen.signature}', output '{chosen.output_key}': "
            f"{_one_line(error)}; choose another --signature or --output_key"
        ) from error
    graph = frozen or function
    ends = (graph.inputs[0].op.name, graph.outputs[0].name)
    return FrozenGraph(graph, *ends, traces, frozen is not None, None if frozen else (module, vectors))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _other_inputs(path: str, chosen: ImageSignature, signature: Any) -> dict[str, Any]:
    """Returns the values of a signature's further inputs: switches are off, the others have their defaults."""
    import tensorflow as tf

    values: dict[str, Any] = dict.fromkeys(chosen.switches, tf.constant(False))
    keys = set(signature.structured_input_signature[1]) - {chosen.input_key, *values}
    if keys:
        inputs = read_module(path, sha256="-").signatures[chosen.signature].inputs
        values |= {key: tf.io.parse_tensor(inputs[key].default, inputs[key].dtype) for key in keys}
    return values


def _fed(images: Any, chosen: ImageSignature) -> Any:
    """Returns images as the signature's input takes them; a plain input gets them unchanged."""
    import tensorflow as tf

    if chosen.is_encoded:
        return images
    if chosen.dtype == "uint8":
        # Interpolation often ends half-way between two levels. float32 in [0, 1] misses the half by less than a part
        # of a level, and another level would result; so the first rounding restores it.
        levels = tf.round(images * (LEVELS * LEVEL_PARTS)) / LEVEL_PARTS
        images = tf.saturate_cast(tf.round(levels), tf.uint8)
    elif chosen.dtype != "float32":
        images = tf.cast(images, chosen.dtype)
    return tf.transpose(images, [0, 3, 1, 2]) if chosen.layout == "NCHW" else images


def _pooled(output: Any, chosen: ImageSignature) -> Any:
    """Returns one float32 vector an image; vectors of float32 are returned unchanged."""
    import tensorflow as tf

    if output.dtype != tf.float32:
        output = tf.cast(output, tf.float32)
    rank = output.shape.rank
    if chosen.pooling == "cls":
        return output[:, 0]
    if chosen.pooling == "mean":
        if rank is None:
            return tf.reduce_mean(output, tf.range(1, tf.rank(output) - 1))
        kept = feature_axis(rank, chosen.layout)
        return tf.reduce_mean(output, [axis for axis in range(1, rank) if axis != kept])
    is_vector = rank is not None and sum(length != 1 for length in output.shape[1:]) <= 1
    if chosen.pooling == "flatten" or (is_vector and rank > 2):
        lengths = [None] if rank is None else output.shape[1:].as_list()
        if None in lengths:
            return tf.reshape(output, [tf.shape(output)[0], -1])
        return tf.reshape(output, [-1, math.prod(lengths)])
    return output
