"""One small SavedModel whose signatures are as odd as those of published modules; all compute `tiny_vectors`.

| signature | its input | its output |
| --- | --- | --- |
| uint8, float16 | of that dtype | |
| nchw | channels first | |
| batch | exactly 4 images | |
| training | a further input `training`, without which noise is added | |
| default | a further input `scale` with a default | |
| encoded | the bytes of JPEG or PNG files | |
| pooled | | [N, 1, 1, 8] |
| tokens | | [N, 3, 8]: the vector, twice the vector, three times the vector |
| map | | [N, 2, 2, 8]: multiples 1, 2, 3 and 4 of the vector |
| nchw_map | channels first | [N, 8, 2, 2], likewise |
| labels | | and a label from a table |
| from_table | | from a table |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.quiet import import_tensorflow
from pipeline.testing import TINY_IMAGE_SIZE, _tiny_kernel

BATCH = 4


def write_odd_module(directory: Path) -> Path:
    """Writes the module to `directory / "odd"`; returns that path."""
    import_tensorflow()
    import tensorflow as tf

    size = TINY_IMAGE_SIZE
    labels = directory / "labels.txt"
    labels.write_text("0\n1\n2\n")
    module = tf.Module()
    module.kernel = tf.Variable(_tiny_kernel().astype(np.float32))
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(labels),
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
        ),
        "none",
    )

    def vectors(images: Any) -> Any:
        blocks = tf.nn.avg_pool2d(images, size // 2, size // 2, "VALID")
        return tf.matmul(tf.reshape(blocks, [-1, 12]), module.kernel)

    def spec(dtype: Any = tf.float32, shape: Any = (None, size, size, 3)) -> Any:
        return tf.TensorSpec(shape, dtype, "images")

    channels_first = spec(shape=(None, 3, size, size))

    def channels_last(images: Any) -> Any:
        return tf.transpose(images, [0, 2, 3, 1])

    def noisy(images: Any, training: Any) -> Any:
        return vectors(images) + tf.where(training, 1e3, 0.0)

    def decode(encoded: Any) -> Any:
        image = tf.cast(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"), tf.float32)
        return tf.image.resize(image, [size, size]) / 255

    def decoded(images: Any) -> Any:
        return tf.ensure_shape(tf.map_fn(decode, images, tf.float32), [None, size, size, 3])

    def multiples(images: Any, shape: list[int]) -> Any:
        parts = [number * vectors(images) for number in range(1, int(np.prod(shape)) + 1)]
        return tf.reshape(tf.stack(parts, axis=1), [-1, *shape, 8])

    def label(found: Any) -> Any:
        return module.table.lookup(tf.argmax(found, axis=1) % 3)

    signatures: dict[str, tuple[Any, list[Any]]] = {
        "uint8": (lambda images: vectors(tf.cast(images, tf.float32) / 255), [spec(tf.uint8)]),
        "float16": (lambda images: vectors(tf.cast(images, tf.float32)), [spec(tf.float16)]),
        "nchw": (lambda images: vectors(channels_last(images)), [channels_first]),
        "batch": (vectors, [spec(shape=(BATCH, size, size, 3))]),
        "training": (noisy, [spec(), tf.TensorSpec([], tf.bool, "training")]),
        "encoded": (lambda images: vectors(decoded(images)), [spec(tf.string, [None])]),
        "pooled": (lambda images: vectors(images)[:, None, None], [spec()]),
        "tokens": (lambda images: multiples(images, [3]), [spec()]),
        "map": (lambda images: multiples(images, [2, 2]), [spec()]),
        "nchw_map": (
            lambda images: tf.transpose(multiples(channels_last(images), [2, 2]), [0, 3, 1, 2]),
            [channels_first],
        ),
        "from_table": (
            lambda images: vectors(images) + tf.strings.to_number(label(vectors(images)))[:, None] * 0,
            [spec()],
        ),
    }
    functions = {name: _function(compute, specs) for name, (compute, specs) in signatures.items()}
    labelled = tf.function(lambda images: {"default": vectors(images), "label": label(vectors(images))})
    functions["labels"] = labelled.get_concrete_function(spec())

    @tf.function(input_signature=[spec(), tf.TensorSpec([], tf.float32, "scale")])
    def scaled(images: Any, scale: Any = tf.constant(1.0)) -> Any:  # noqa: B008
        return {"default": vectors(images) * scale}

    functions["default"] = scaled
    tf.saved_model.save(module, str(directory / "odd"), signatures=functions)
    return directory / "odd"


def _function(compute: Any, specs: list[Any]) -> Any:
    """Returns the concrete function of some inputs, whose only output is `default`."""
    import tensorflow as tf

    return tf.function(lambda *args: {"default": compute(*args)}).get_concrete_function(*specs)
