"""Checks a module in the TF1 Hub format with the last library that had `hub.Module`; not part of the pytest run.

TensorFlow 1.15 needs Python 3.7:

    python3.7 -m venv tf1
    tf1/bin/pip install tensorflow==1.15.5 tensorflow_hub==0.12.0 "protobuf<3.21" "numpy<1.19"
    python -m pipeline.hub export --checkpoint=mobilenet_v2_0.5_160.ckpt --output=module
    tf1/bin/python tests/tf1/check_module.py module [FEATURES.npz]

FEATURES.npz, if given, holds `images` and the `features` that another TensorFlow computed from them.
"""
# ruff: noqa: T201

import sys

import numpy as np
import tensorflow as tf
import tensorflow_hub as hub

DECAY = 0.997


def check_inference(path, reference):
    """The words of the module's card, on the graph version for inference."""
    with tf.Graph().as_default():
        module = hub.Module(path)
        height, width = hub.get_expected_image_size(module)
        assert hub.get_num_image_channels(module) == 3
        assert module.get_attached_message("image_module_info", hub.image_util.ImageModuleInfo) is not None
        classifies = "image_classification" in module.get_signature_names()
        others = ["image_classification"] if classifies else []
        assert sorted(module.get_signature_names()) == ["default", *others, "image_feature_vector"]
        images = tf.placeholder(tf.float32, [None, height, width, 3])
        features = module(images, signature="image_feature_vector")
        last = "image_classification" if classifies else "image_feature_vector"
        default = [module(images), module(images, signature=last)]
        endpoints = module({"images": images}, signature="image_feature_vector", as_dict=True)
        assert tf.get_collection(tf.GraphKeys.UPDATE_OPS) == []
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            value = reference["images"] if reference else np.random.RandomState(0).rand(2, height, width, 3)
            got, named, pooled, default = session.run(
                [features, endpoints["default"], endpoints["MobilenetV2/global_pool"], default], {images: value}
            )
    assert got.shape[1] == features.shape[1].value
    assert np.array_equal(got, named)
    assert np.array_equal(got, pooled[:, 0, 0])
    assert np.array_equal(*default)
    if reference:
        error = np.linalg.norm(got - reference["features"]) / np.linalg.norm(reference["features"])
        assert error < 1e-5, error
        print(f"features: relative L2 difference {error:.1e}")
    count = len(module.variable_map)
    print(f"inference: {count} variables, image size {height}x{width}, {got.shape[1]} features")


def check_training(path):
    """One step of fine-tuning on the graph version for training, update operations included."""
    with tf.Graph().as_default():
        module = hub.Module(path, trainable=True, tags={"train"})
        height, width = hub.get_expected_image_size(module)
        images = tf.constant(np.random.RandomState(0).rand(4, height, width, 3).astype(np.float32))
        features = module(images, signature="image_feature_vector")
        logits = tf.layers.dense(features, 2)
        loss = tf.losses.sparse_softmax_cross_entropy(tf.constant([0, 1, 0, 1]), logits)
        losses = tf.losses.get_regularization_losses()
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        trainable = tf.trainable_variables()
        classifies = "image_classification" in module.get_signature_names()
        expected = (36, 104, 158 + 2) if classifies else (35, 104, 156 + 2)
        assert (len(losses), len(updates), len(trainable)) == expected, (losses, updates, trainable)
        with tf.control_dependencies(updates):
            step = tf.train.GradientDescentOptimizer(0.01).minimize(loss + tf.add_n(losses))
        convolved = tf.get_default_graph().get_tensor_by_name(
            "module_apply_image_feature_vector/MobilenetV2/Conv/Conv2D:0"
        )
        variables = module.variable_map
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            before, inputs, first = session.run([variables, convolved, loss])
            session.run(step)
            after, second = session.run([variables, loss])
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    # Not every beta moves: batch normalisation takes out what a linear layer before it adds.
    still = [name for name in before if name not in moved and not name.endswith(("beta", "biases"))]
    assert not still, still
    count = inputs[..., 0].size
    inputs = inputs.astype(np.float64)
    for name, batch in (
        ("moving_mean", inputs.mean((0, 1, 2))),
        ("moving_variance", inputs.var((0, 1, 2)) * count / (count - 1)),
    ):
        name = "MobilenetV2/Conv/BatchNorm/" + name
        expected = DECAY * before[name] + (1 - DECAY) * batch
        error = np.abs(after[name] - expected).max()
        assert error < 1e-5, (name, error)
        print(f"{name}: moved as expected to {error:.1e}")
    print(f"training: loss {first:.4f}, then {second:.4f}; {len(moved)} of {len(before)} variables moved")


if __name__ == "__main__":
    check_inference(sys.argv[1], np.load(sys.argv[2]) if len(sys.argv) > 2 else None)
    check_training(sys.argv[1])
    print(f"ok, TensorFlow {tf.__version__}, tensorflow_hub {hub.__version__}")
