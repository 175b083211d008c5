"""Fakes and tiny fixtures for tests of this package and of its users.

```
embedder = Embedder(FakeEngine(), ImageDecoder(height=32, width=32))
batch = embedder.embed([make_record("a", image=jpeg_bytes()), make_record("b", image=b"no image")])
assert batch.num_rows == 1 and batch.failures[0].reason == "not_an_image"
```
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.records import Feature, ImageRecord
from pipeline.engines.base import Engine
from pipeline.tfrecords.examples import encode_example
from pipeline.tfrecords.framing import frame

TINY_IMAGE_SIZE = 32
"""Height and width in pixels of the images that the module of `write_tiny_module` takes."""
TINY_DIMENSION = 8
"""Length of that module's vectors."""

_BLOCK = 16


class FakeEngine(Engine):
    """An engine without a network: the vector of an image is the mean of each of its channels.

    Attributes:
      calls: the number of images of each call so far.
    """

    name = "fake"
    dimension = 3

    def __init__(
        self,
        batch_size: int = 8,
        *,
        dtype: Literal["float32", "uint8"] = "float32",
        concurrent_calls: int | None = None,
    ) -> None:
        """Makes an engine with these settings; see `pipeline.engines.base.Engine`."""
        self.batch_size = batch_size
        self.dtype = dtype
        self.concurrent_calls = concurrent_calls
        self.calls: list[int] = []

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the vectors float32 [N, 3] of images [N, height, width, 3].

        Raises:
          ValueError: there are no images, more than `batch_size`, or of another dtype.
        """
        if not 1 <= len(images) <= self.batch_size or images.dtype != self.dtype:
            raise ValueError(
                f"{len(images)} images of {images.dtype} arrived; expected 1 to {self.batch_size} of {self.dtype}"
            )
        self.calls.append(len(images))
        means: NDArray[np.float32] = images.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        return means


def make_pixels(height: int = 40, width: int = 48, *, seed: int = 0) -> NDArray[np.uint8]:
    """Returns smooth random colours, RGB uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    corners: NDArray[np.float32] = rng.integers(0, 256, (3, 3, 3)).astype(np.float32)
    smooth = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels: NDArray[np.uint8] = np.rint(smooth).astype(np.uint8)
    return pixels


def jpeg_bytes(height: int = 40, width: int = 48, *, seed: int = 0) -> bytes:
    """Returns `make_pixels` as a JPEG."""
    return _encode(".jpg", make_pixels(height, width, seed=seed))


def png_bytes(height: int = 40, width: int = 48, *, seed: int = 0) -> bytes:
    """Returns `make_pixels` as a PNG."""
    return _encode(".png", make_pixels(height, width, seed=seed))


def _encode(extension: str, pixels: NDArray[np.uint8]) -> bytes:
    _, encoded = cv2.imencode(extension, pixels[:, :, ::-1])
    return bytes(encoded.tobytes())


def make_record(
    key: str | bytes, *, image: bytes | None = None, features: Mapping[str, Feature] | None = None
) -> ImageRecord:
    """Returns a record; its image is `jpeg_bytes()` by default."""
    encoded = key.encode() if isinstance(key, str) else key
    source = encoded.decode("utf-8", "surrogateescape")
    return ImageRecord(encoded, source, jpeg_bytes() if image is None else image, features or {})


def make_example(features: Mapping[str, Any]) -> bytes:
    """Returns a serialized `tf.train.Example`.

    Args:
      features: by name, one value or a sequence of values, each bytes, str, float or int.
    """
    return encode_example({name: _feature(value) for name, value in features.items()})


def _feature(value: Any) -> Feature:
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
    values = tuple(item.encode() if isinstance(item, str) else item for item in values)
    if all(isinstance(item, bytes) for item in values):
        return Feature("bytes", values)
    return Feature("int64" if all(isinstance(item, int) for item in values) else "float", values)


def make_tfrecord(examples: Iterable[bytes]) -> bytes:
    """Returns serialized Examples as the contents of an uncompressed TFRecord file."""
    return b"".join(map(frame, examples))


def tiny_vectors(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the vectors of the module of `write_tiny_module`, computed by NumPy in float64.

    The means of the four 16x16 blocks of each image, times a fixed matrix.

    Args:
      images: float32 [N, 32, 32, 3], RGB in [0, 1].

    Returns:
      float32 [N, 8].
    """
    side = TINY_IMAGE_SIZE // _BLOCK
    blocks = images.reshape(len(images), side, _BLOCK, side, _BLOCK, 3).mean(axis=(2, 4), dtype=np.float64)
    vectors: NDArray[np.float32] = (blocks.reshape(len(images), -1) @ _tiny_kernel()).astype(np.float32)
    return vectors


def write_tiny_module(directory: str | os.PathLike[str], *, format: Literal["tf1_hub", "tf2"] = "tf2") -> None:  # noqa: A002
    """Writes a module of 96 weights, which loads fast; needs TensorFlow.

    Its signatures take `images`, float32 [N, 32, 32, 3] in [0, 1], and return `default`, float32 [N, 8], equal to
    `tiny_vectors` up to rounding.

    Args:
      directory: of the module; created if it does not exist. It must not hold a module yet.
      format: `tf2`, a SavedModel with `serving_default`; or `tf1_hub`, the TF1 Hub format with `default` and
        `image_feature_vector`.
    """
    import tensorflow as tf

    kernel = _tiny_kernel().astype(np.float32)
    shape = [None, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3]

    def compute(variable: Any, images: Any) -> Any:
        blocks = tf.nn.avg_pool2d(images, _BLOCK, _BLOCK, "VALID")
        return tf.matmul(tf.reshape(blocks, [-1, len(kernel)]), variable)

    if format == "tf2":
        module = tf.Module()
        module.kernel = tf.Variable(kernel)

        def serve(images: Any) -> dict[str, Any]:
            return {"default": compute(module.kernel, images)}

        images_spec = tf.TensorSpec(shape, tf.float32, name="images")
        signature = tf.function(serve, autograph=False, input_signature=[images_spec])
        tf.saved_model.save(module, os.fspath(directory), signatures={"serving_default": signature})
        return

    from pipeline.savedmodel import tf1_hub as hub_format

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        variable = v1.get_variable(
            "kernel",
            kernel.shape,
            initializer=v1.zeros_initializer(),
            use_resource=True,
            collections=[v1.GraphKeys.GLOBAL_VARIABLES, v1.GraphKeys.MODEL_VARIABLES],
        )
        images = v1.placeholder(tf.float32, shape, name="images")
        vectors = hub_format.Signature({"images": images}, {"default": compute(variable, images)})
    meta_graph = hub_format.make_meta_graph(
        graph,
        hub_format.INFERENCE,
        {"default": vectors, "image_feature_vector": vectors},
        hub_format.ImageSize(TINY_IMAGE_SIZE, TINY_IMAGE_SIZE),
    )
    hub_format.write(Path(directory), [meta_graph], {"kernel": kernel})


def _tiny_kernel() -> NDArray[np.float64]:
    """Returns [12, 8] multiples of 1/8 with distinct columns."""
    rows, columns = np.indices(((TINY_IMAGE_SIZE // _BLOCK) ** 2 * 3, TINY_DIMENSION))
    kernel: NDArray[np.float64] = ((rows * rows + 3 * rows * columns + columns) % 11 - 5) / 8
    return kernel
