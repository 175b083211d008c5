"""MobileNetV2 for tests: values for its variables, and features computed by somebody else."""

import re

import numpy as np


def random_values(network, seed=0):
    """Returns weights that keep activations of a sound scale, whatever the network."""
    random = np.random.default_rng(seed)
    values = {}
    for variable in network.variables():
        shape = variable.shape
        if variable.name.endswith("weights"):
            fan_in = 9 if variable.name.endswith("depthwise_weights") else np.prod(shape[:3])
            value = random.normal(0, np.sqrt(2 / fan_in), shape)
        elif variable.name.endswith(("gamma", "moving_variance")):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, 0.3, shape)
        values[variable.name] = value.astype(np.float32)
    return values


def keras_features(network, values, images):
    """Computes the features with Keras' own MobileNetV2, images in [0, 1]."""
    import tensorflow as tf

    size = network.image_size
    model = tf.keras.applications.MobileNetV2(
        input_shape=(size, size, 3), alpha=network.depth_multiplier, include_top=False, pooling="avg", weights=None
    )
    scopes = {"Conv1": "Conv", "bn_Conv1": "Conv", "Conv_1": "Conv_1", "Conv_1_bn": "Conv_1"}
    filled = 0
    for layer in model.layers:
        if not layer.weights:
            continue
        scope = scopes.get(layer.name)
        if scope is None:
            block, part = re.fullmatch(r"(.*)_(expand|depthwise|project)(?:_BN)?", layer.name).groups()
            number = "" if block == "expanded_conv" else "_" + block.removeprefix("block_")
            scope = f"expanded_conv{number}/{part}"
        scope = f"MobilenetV2/{scope}"
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            names = [f"{scope}/BatchNorm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        elif isinstance(layer, tf.keras.layers.DepthwiseConv2D):
            names = [f"{scope}/depthwise_weights"]
        else:
            names = [f"{scope}/weights"]
        layer.set_weights([values[name] for name in names])
        filled += len(names)
    assert filled == 260
    return model(images * 2 - 1, training=False).numpy()
