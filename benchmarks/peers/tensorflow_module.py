"""Functions that the peers with TensorFlow share."""

import tensorflow as tf

from benchmarks.task import Task


def load_signature(task: Task):
    """Returns the module, which the caller keeps alive, and its function: float32 [N, H, W, 3] to float32 [N, D]."""
    module = tf.saved_model.load(task.module, tags=list(task.tags))
    signature = module.signatures[task.signature]
    return module, lambda images: signature(**{task.input_key: images})[task.output_key]


def parse(task: Task, serialized):
    """Returns the key and the image, float32 [height, width, 3], of a serialized Example."""
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string), "id": tf.io.FixedLenFeature([], tf.string)}
    example = tf.io.parse_single_example(serialized, features)
    pixels = tf.io.decode_jpeg(example["image/encoded"], channels=3, dct_method="INTEGER_ACCURATE")
    image = tf.image.resize(tf.image.convert_image_dtype(pixels, tf.float32), [task.height, task.width])
    return example["id"], image


def to_example(key: bytes, vector) -> bytes:
    """Returns a key and its vector as a serialized Example."""
    features = {
        "key": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key])),
        "embedding": tf.train.Feature(float_list=tf.train.FloatList(value=vector)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
