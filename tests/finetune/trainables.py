"""A network of 104 trainable weights with batch normalisation, as a module of either format, and a task for it."""

from pathlib import Path

import cv2
import numpy as np

from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.testing import make_example, make_tfrecord

SIZE = 16
DIMENSION = 8
DECAY = 0.9
EPSILON = 0.001
WEIGHT_DECAY = 1e-3
SHAPES = {"kernel": (12, DIMENSION), "beta": (DIMENSION,), "mean": (DIMENSION,), "variance": (DIMENSION,)}
TRAINABLE = ("kernel", "beta")


def initial_values():
    return {
        "kernel": np.random.default_rng(0).normal(0, 1, SHAPES["kernel"]).astype(np.float32),
        "beta": np.zeros(DIMENSION, np.float32),
        "mean": np.zeros(DIMENSION, np.float32),
        "variance": np.ones(DIMENSION, np.float32),
    }


def activations(values, images):
    """Returns what is normalised, float64 [N, DIMENSION]."""
    half = SIZE // 2
    blocks = images.reshape(len(images), 2, half, 2, half, 3).mean(axis=(2, 4), dtype=np.float64)
    return blocks.reshape(len(images), 12) @ values["kernel"]


def compute(variables, images, training):
    """Returns the vectors, and in training the operations that move the averages."""
    import tensorflow as tf

    blocks = tf.nn.avg_pool2d(images, SIZE // 2, SIZE // 2, "VALID")
    x = tf.matmul(tf.reshape(blocks, [-1, 12]), variables["kernel"])
    mean, variance, updates = variables["mean"], variables["variance"], []
    if training:
        moving, (mean, variance) = (mean, variance), tf.nn.moments(x, [0])
        for average, statistic in zip(moving, (mean, variance), strict=True):
            updates.append(average.assign_sub((average - statistic) * (1 - DECAY), read_value=False))
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) + variables["beta"], updates


def write_trainable(directory, format="tf1_hub", *, interface=True, train_version=True, called=DIMENSION):  # noqa: A002
    """Writes the module.

    `interface` and `train_version` say whether it has what fine-tuning needs, `called` how many of the values of a
    vector a call of a TF2 module returns.
    """
    if format == "tf1_hub":
        _write_tf1(directory, [hub_format.INFERENCE, hub_format.TRAIN] if train_version else [hub_format.INFERENCE])
    else:
        _write_tf2(directory, interface, called)
    return directory


def _write_tf1(directory, versions):
    import tensorflow as tf

    v1 = tf.compat.v1
    meta_graphs = []
    for tags in versions:
        with tf.Graph().as_default() as graph:
            variables = {
                name: v1.get_variable(
                    name,
                    shape,
                    initializer=v1.zeros_initializer(),
                    use_resource=True,
                    trainable=name in TRAINABLE,
                    collections=[v1.GraphKeys.GLOBAL_VARIABLES, v1.GraphKeys.MODEL_VARIABLES],
                )
                for name, shape in SHAPES.items()
            }
            images = v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="images")
            vectors, updates = compute(variables, images, training=bool(tags))
            for update in updates:
                v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
            loss = WEIGHT_DECAY * tf.nn.l2_loss(variables["kernel"])
            v1.add_to_collection(v1.GraphKeys.REGULARIZATION_LOSSES, loss)
        signature = hub_format.Signature({"images": images}, {"default": vectors})
        signatures = {"default": signature, "image_feature_vector": signature}
        meta_graphs.append(hub_format.make_meta_graph(graph, tags, signatures, hub_format.ImageSize(SIZE, SIZE)))
    hub_format.write(Path(directory), meta_graphs, initial_values())


def _write_tf2(directory, interface, called):
    import tensorflow as tf

    variables = {
        name: tf.Variable(value, trainable=name in TRAINABLE, name=name) for name, value in initial_values().items()
    }
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="images")

    @tf.function(autograph=False)
    def call(images, training=False):
        return compute(variables, images, training)[0][:, :called]

    serve = tf.function(
        lambda images: {"default": compute(variables, images, False)[0]}, autograph=False, input_signature=[spec]
    )
    module = tf.train.Checkpoint()
    module.all_variables = list(variables.values())
    if interface:
        for training in (False, True):
            call.get_concrete_function(spec, training=training)
        module.__call__ = call
        module.variables = module.all_variables
        module.trainable_variables = [variables[name] for name in TRAINABLE]
        loss = tf.function(
            lambda: WEIGHT_DECAY * tf.nn.l2_loss(variables["kernel"]), autograph=False, input_signature=()
        )
        module.regularization_losses = [loss]
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})


def colours(label, random, side=24):
    """Returns a PNG of noise; class 0 is red, class 1 green, class 2 blue."""
    pixels = random.uniform(0, 0.4, (side, side, 3))
    pixels[..., 2 - label] += 0.5  # OpenCV puts blue first
    _, encoded = cv2.imencode(".png", (pixels * 255).astype(np.uint8))
    return encoded.tobytes()


def write_colours(path, count, seed=0):
    """Writes `count` Examples of each class of `colours` as a TFRecord file; returns its path as text."""
    random = np.random.default_rng(seed)
    examples = [
        make_example({"image/encoded": colours(label, random), "label": label})
        for _ in range(count)
        for label in range(3)
    ]
    Path(path).write_bytes(make_tfrecord(examples))
    return str(path)


def stripes(label, random, side=24):
    """Returns a PNG: class 0 is brighter at the top, class 1 at the bottom, class 2 evenly; in any light colour."""
    ramp = [np.linspace(1, 0.2, side), np.linspace(0.2, 1, side), np.full(side, 0.6)][label]
    pixels = ramp[:, None, None] * random.uniform(0.7, 1, 3) + random.uniform(-0.05, 0.05, (side, side, 3))
    _, encoded = cv2.imencode(".png", np.clip(pixels * 255, 0, 255).astype(np.uint8))
    return encoded.tobytes()


def stripe_examples(count, seed=0, names=("top", "bottom", "even")):
    """Returns `count` serialized Examples of each class, with the features `image/encoded`, `label` and `name`."""
    random = np.random.default_rng(seed)
    return [
        make_example({"image/encoded": stripes(label, random), "label": label, "name": names[label]})
        for _ in range(count)
        for label in range(3)
    ]


def write_stripes(path, count, seed=0):
    """Writes `stripe_examples` as a TFRecord file; returns its path as text."""
    Path(path).write_bytes(make_tfrecord(stripe_examples(count, seed)))
    return str(path)
