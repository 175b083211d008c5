import itertools
import re

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.mobilenet.network import (
    DEPTH_MULTIPLIERS,
    IMAGE_SIZES,
    count_parameters,
    forward,
    from_name,
    mobilenet_v2,
    regularization_loss,
)
from tests.mobilenet.mobilenets import keras_features, random_values

FAMILY = list(itertools.product(DEPTH_MULTIPLIERS, IMAGE_SIZES))


@pytest.mark.parametrize(
    ("multiplier", "parameters"),
    [(0.35, 410_208), (0.5, 706_224), (0.75, 1_382_064), (1.0, 2_257_984), (1.3, 3_766_048), (1.4, 4_363_712)],
)
def test_parameter_counts(multiplier, parameters):
    assert count_parameters(mobilenet_v2(multiplier, 160)) == parameters


@pytest.mark.parametrize("multiplier", DEPTH_MULTIPLIERS)
def test_variables_are_counted_like_those_of_tf_slim(multiplier):
    network = mobilenet_v2(multiplier, 224)
    variables = list(network.variables())
    assert len(variables) == len({variable.name for variable in variables}) == 260
    assert sum(variable.trainable for variable in variables) == 156
    assert len(list(network.with_classifier(1001).variables())) == 262


def test_variables_have_the_names_and_shapes_of_the_published_checkpoint():
    network = mobilenet_v2(0.5, 160).with_classifier(1001)
    shapes = {variable.name: variable.shape for variable in network.variables()}
    expected = {
        "MobilenetV2/Conv/weights": (3, 3, 3, 16),
        "MobilenetV2/Conv/BatchNorm/gamma": (16,),
        "MobilenetV2/expanded_conv/depthwise/depthwise_weights": (3, 3, 16, 1),
        "MobilenetV2/expanded_conv/project/weights": (1, 1, 16, 8),
        "MobilenetV2/expanded_conv_1/expand/weights": (1, 1, 8, 48),
        "MobilenetV2/expanded_conv_1/depthwise/BatchNorm/moving_mean": (48,),
        "MobilenetV2/expanded_conv_16/project/BatchNorm/moving_variance": (160,),
        "MobilenetV2/Conv_1/weights": (1, 1, 160, 1280),
        "MobilenetV2/Logits/Conv2d_1c_1x1/weights": (1, 1, 1280, 1001),
        "MobilenetV2/Logits/Conv2d_1c_1x1/biases": (1001,),
    }
    assert {name: shapes[name] for name in expected} == expected
    assert "MobilenetV2/expanded_conv/expand/weights" not in shapes


@pytest.mark.parametrize(
    ("multiplier", "features"), [(0.35, 1280), (0.5, 1280), (0.75, 1280), (1.0, 1280), (1.3, 1664), (1.4, 1792)]
)
def test_multipliers_below_one_keep_the_feature_vector_wide(multiplier, features):
    assert mobilenet_v2(multiplier, 96).num_features == features


@pytest.mark.parametrize(("multiplier", "size"), FAMILY)
def test_walk_passes_matching_widths_and_halves_the_image_five_times(multiplier, size):
    network = mobilenet_v2(multiplier, size)

    class Shape:
        def __init__(self, size, channels):
            self.size, self.channels = size, channels

        def __add__(self, other):
            assert (self.size, self.channels) == (other.size, other.channels)
            return self

    walked = []

    def apply(layer, x):
        assert x.channels == layer.in_channels
        walked.append(layer)
        return Shape(x.size // layer.stride, layer.out_channels)

    endpoints = network.walk(Shape(size, 3), apply)
    assert walked == list(network.layers())
    assert len(walked) == 52
    assert all(layer.out_channels % 8 == 0 for layer in walked)
    assert (endpoints["embedding"].size, endpoints["embedding"].channels) == (size // 32, network.num_features)
    assert endpoints["layer_19"] is endpoints["embedding"]
    assert "layer_2/expansion_output" not in endpoints
    assert {"layer_1", "layer_2/output", "layer_18/expansion_output", "layer_18/depthwise_output"} <= set(endpoints)


def test_ten_blocks_have_a_residual():
    assert sum(block.residual for block in mobilenet_v2(1.0, 224).blocks) == 10


@pytest.mark.parametrize(("multiplier", "size"), FAMILY)
def test_names_and_networks_correspond(multiplier, size):
    network = mobilenet_v2(multiplier, size)
    assert from_name(network.name) == network


def test_name_of_the_network_of_the_card():
    assert from_name("mobilenet_v2_050_160") == mobilenet_v2(0.5, 160)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mobilenet_v2",
        "mobilenet_v1_050_160",
        "mobilenet_v2_050_161",
        "mobilenet_v2_060_160",
        "mobilenet_v2_50_160",
        "mobilenet_v2_050_160\n",
        "mobilenet_v2_050_0160",
        "mobilenet_v2_\u0660\u0665\u0660_160",
    ],
)
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ModuleError, match=re.escape(repr(name))) as caught:
        from_name(name)
    message = str(caught.value)
    assert "035, 050, 075, 100, 130, 140" in message
    assert "96, 128, 160, 192, 224" in message
    assert "\n" not in message


def test_unknown_member_lists_the_known_ones():
    with pytest.raises(
        ModuleError,
        match=r"no MobileNetV2 with depth multiplier 0\.6 and image size 100: choose a multiplier from "
        r"0\.35, 0\.5, 0\.75, 1, 1\.3, 1\.4 and a size from 96, 128, 160, 192, 224",
    ):
        mobilenet_v2(0.6, 100)


def check_against_keras(multiplier, size):
    import tensorflow as tf

    network = mobilenet_v2(multiplier, size)
    values = random_values(network)
    images = np.random.default_rng(1).random((2, size, size, 3), np.float32)
    variables = {name: tf.Variable(value) for name, value in values.items()}
    features = forward(network, variables, images, training=False).features.numpy()
    expected = keras_features(network, values, images)
    assert features.shape == (2, network.num_features)
    assert np.linalg.norm(features - expected) <= 1e-4 * np.linalg.norm(expected)


def test_features_are_those_of_keras():
    check_against_keras(0.5, 160)


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 160, 224])
@pytest.mark.parametrize("multiplier", DEPTH_MULTIPLIERS)
def test_features_are_those_of_keras_for_the_family(multiplier, size):
    check_against_keras(multiplier, size)


def test_training_uses_and_averages_the_statistics_of_the_batch():
    import tensorflow as tf

    network = mobilenet_v2(0.35, 96)
    values = random_values(network)
    images = np.random.default_rng(2).random((4, 96, 96, 3), np.float32)
    variables = {name: tf.Variable(value) for name, value in values.items()}
    outputs = forward(network, variables, images, training=True)

    convolved = tf.nn.conv2d(images * 2 - 1, values["MobilenetV2/Conv/weights"], 2, "SAME").numpy().astype(np.float64)
    count = convolved[..., 0].size
    mean, variance = convolved.mean((0, 1, 2)), convolved.var((0, 1, 2))
    scope = "MobilenetV2/Conv/BatchNorm"
    normalised = (convolved - mean) / np.sqrt(variance + 0.001) * values[f"{scope}/gamma"] + values[f"{scope}/beta"]
    np.testing.assert_allclose(outputs.endpoints["layer_1"], np.clip(normalised, 0, 6), atol=1e-4)
    expected_mean = 0.997 * values[f"{scope}/moving_mean"] + 0.003 * mean
    expected_variance = 0.997 * values[f"{scope}/moving_variance"] + 0.003 * variance * count / (count - 1)
    np.testing.assert_allclose(variables[f"{scope}/moving_mean"], expected_mean, atol=1e-6)
    np.testing.assert_allclose(variables[f"{scope}/moving_variance"], expected_variance, atol=1e-6)
    moved = {name for name in values if not np.array_equal(variables[name], values[name])}
    assert moved == {variable.name for variable in network.variables() if not variable.trainable}


def test_inference_moves_nothing():
    import tensorflow as tf

    network = mobilenet_v2(0.35, 96)
    values = random_values(network)
    variables = {name: tf.Variable(value) for name, value in values.items()}
    outputs = forward(network, variables, np.zeros((1, 96, 96, 3), np.float32), training=False)
    assert outputs.updates == ()
    assert all(np.array_equal(variables[name], values[name]) for name in values)


def test_logits_are_a_linear_map_of_the_features():
    import tensorflow as tf

    network = mobilenet_v2(0.35, 96).with_classifier(7)
    values = random_values(network)
    images = np.random.default_rng(3).random((2, 96, 96, 3), np.float32)
    outputs = forward(network, {name: tf.Variable(value) for name, value in values.items()}, images, training=False)
    kernel = values["MobilenetV2/Logits/Conv2d_1c_1x1/weights"][0, 0]
    expected = outputs.features.numpy() @ kernel + values["MobilenetV2/Logits/Conv2d_1c_1x1/biases"]
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_classes", "losses"), [(0, 35), (5, 36)])
def test_regularization_losses_are_those_of_the_dense_kernels(num_classes, losses):
    import tensorflow as tf

    network = mobilenet_v2(0.35, 96).with_classifier(num_classes)
    values = random_values(network)
    got = [regularization_loss(name, tf.constant(values[name])) for name in network.regularized()]
    dense = [value for name, value in values.items() if name.endswith("/weights")]
    assert len(got) == losses
    expected = sum(4e-5 * (value.astype(np.float64) ** 2).sum() / 2 for value in dense)
    assert sum(map(float, got)) == pytest.approx(expected, rel=1e-5)
