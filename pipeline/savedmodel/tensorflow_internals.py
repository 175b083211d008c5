"""All that this package uses of TensorFlow beyond its public names, which any release may change."""

from __future__ import annotations

from typing import Any


def freeze_variables(function: Any) -> Any:
    """Returns a concrete function of TensorFlow with the variables that it reads turned into constants.

    Args:
      function: what `tf.function(...).get_concrete_function(...)` returns.
    """
    # The public tf.compat.v1.graph_util does this for graphs of TensorFlow 1 only.
    from tensorflow.python.framework import convert_to_constants

    return convert_to_constants.convert_variables_to_constants_v2(function)
