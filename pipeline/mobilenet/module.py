"""MobileNetV2 as a module with the common signatures for images, in either format.

Signatures, after tensorflow_hub's "common signatures for images", all from `images`: float32
[batch, height, width, 3], RGB in [0, 1].

- `image_feature_vector` gives `default`: float32 [batch, num_features].
- `image_classification`, in a module with a classifier, gives `default`: float32 [batch, num_classes], logits.
- `default` is the last of these that the module has.

Each also gives the hidden activations under TF-Slim's names with the prefix `MobilenetV2/`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.mobilenet.network import SCOPE, Network, Outputs, forward, regularization_loss
from pipeline.savedmodel import tf1_hub as hub_format


def write_tf1_hub(network: Network, values: Mapping[str, npt.NDArray[np.float32]], directory: Path) -> None:
    """Writes a module in the TF1 Hub format, with a graph version for inference and one for training.

    Args:
      network: the architecture.
      values: float32, one for each of `network.variables()`.
      directory: made if need be; must not hold a module yet.
    """
    meta_graphs = [build_graph(network, tags) for tags in (hub_format.INFERENCE, hub_format.TRAIN)]
    hub_format.write(directory, meta_graphs, values)


def write_tf2(network: Network, values: Mapping[str, npt.NDArray[np.float32]], directory: Path) -> None:
    """Writes a TF2 SavedModel with tensorflow_hub's "reusable SavedModel" interface and the same signatures.

    The loaded object is called as `module(images, training=False)` and gives what the signature `default` calls
    `default`. It has `variables`, `trainable_variables` and `regularization_losses`. Training uses the statistics of
    the batch and moves their averages.

    Args:
      network: the architecture.
      values: float32, one for each of `network.variables()`.
      directory: made if need be; must not hold a module yet.
    """
    import tensorflow as tf

    variables = {
        variable.name: tf.Variable(values[variable.name], trainable=variable.trainable, name=variable.name)
        for variable in network.variables()
    }
    images_spec = tf.TensorSpec([None, network.image_size, network.image_size, 3], tf.float32, name="images")

    def outputs_of(name: str, images: Any, training: bool = False) -> dict[str, Any]:
        return _outputs(name, forward(network, variables, images, training=training))

    @tf.function(autograph=False)
    def call(images: Any, training: bool = False) -> Any:
        return outputs_of(_signature_names(network)[-1], images, training)["default"]

    for training in (False, True):
        call.get_concrete_function(images_spec, training=training)
    signatures = {
        name: tf.function(functools.partial(outputs_of, name), autograph=False).get_concrete_function(images_spec)
        for name in _signature_names(network)
    }
    # Tools that know nothing of modules look for `serving_default`.
    signatures["default"] = signatures["serving_default"] = signatures[_signature_names(network)[-1]]
    # A container whose attributes become those of the loaded object.
    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = list(variables.values())
    module.trainable_variables = [variable for variable in variables.values() if variable.trainable]
    module.regularization_losses = [
        tf.function(functools.partial(regularization_loss, name, variables[name]), autograph=False, input_signature=())
        for name in network.regularized()
    ]
    tf.saved_model.save(module, os.fspath(directory), signatures=signatures)


def build_graph(network: Network, tags: frozenset[str]) -> Any:
    """Returns a graph version of a module in the TF1 Hub format, without values, as a MetaGraphDef.

    Args:
      network: the architecture.
      tags: `INFERENCE` or `TRAIN` of `pipeline.savedmodel.tf1_hub`.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    size = network.image_size
    with tf.Graph().as_default() as graph:
        variables = {}
        for variable in network.variables():
            # The initial value is never used: readers restore the checkpoint instead.
            variables[variable.name] = v1.get_variable(
                variable.name,
                variable.shape,
                tf.float32,
                initializer=v1.zeros_initializer(),
                trainable=variable.trainable,
                use_resource=True,
                collections=[v1.GraphKeys.GLOBAL_VARIABLES, v1.GraphKeys.MODEL_VARIABLES],
            )
        images = v1.placeholder(tf.float32, [None, size, size, 3], name="images")
        outputs = forward(network, variables, images, training="train" in tags)
        for update in outputs.updates:
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        for name in network.regularized():
            v1.add_to_collection(v1.GraphKeys.REGULARIZATION_LOSSES, regularization_loss(name, variables[name]))
    signatures = {
        name: hub_format.Signature({"images": images}, _outputs(name, outputs)) for name in _signature_names(network)
    }
    signatures["default"] = signatures[_signature_names(network)[-1]]
    return hub_format.make_meta_graph(graph, tags, signatures, hub_format.ImageSize(size, size))


def _signature_names(network: Network) -> list[str]:
    """The common signatures of a module; the last one is its default."""
    return ["image_feature_vector"] + (["image_classification"] if network.num_classes else [])


def _outputs(signature: str, outputs: Outputs) -> dict[str, Any]:
    default = outputs.logits if signature == "image_classification" else outputs.features
    hidden = {f"{SCOPE}/{name}": tensor for name, tensor in outputs.endpoints.items()}
    return {"default": default, **hidden}
