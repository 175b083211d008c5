"""The built-in networks: MobileNetV2 with seeded weights, for trying the pipeline out.

They know nothing about images; but they are smooth. A photo that changes little gets nearly the same vector, two
photos get different ones, and every activation has a sound scale:

- dense kernels are normal with variance 2 / inputs (He et al., arXiv:1502.01852);
- depthwise kernels are a 3x3 binomial low-pass filter with a little noise, without which the network amplifies noise
  from layer to layer until photos differ by little else;
- the moving averages of batch normalisation are the statistics of a few synthetic images, without which the vectors
  vanish; its `beta` of 0.5 keeps most units above zero.

The same name gives the same bits everywhere, whatever the machine, its BLAS and its C library. Random numbers come
from SHAKE-256. Everything that is summed (images, kernels, activations) is a multiple of a power of two, coarse enough
that float64 holds every product and every partial sum exactly, so that no order of summation can show. What remains is
element by element `+ - * / sqrt` and rounding, which IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core.quiet import import_tensorflow
from pipeline.mobilenet.module import write_tf1_hub
from pipeline.mobilenet.network import BATCH_NORM_EPSILON, Layer, Network, from_name

VERSION = "1"
"""Changes whenever the bytes of a built-in module do; caches know them by it."""

Array = npt.NDArray[np.float64]

_BETA = 0.5
_DEPTHWISE_NOISE = 0.05
_LOW_PASS = np.outer([1, 2, 1], [1, 2, 1]) / 16
# Kernels are multiples of 2**-14 below 2**3, activations multiples of 2**-8 below 2**8: a product has at most 33
# bits, a sum of 1792 of them 44. The sum of squares over eight images has 2**17 terms of 32 bits: 49. float64 has 53.
_KERNEL_STEP = 2.0**-14
_ACTIVATION_STEP = 2.0**-8
_IMAGES = 8
_DISCS = 150


def build(name: str, directory: Path) -> None:
    """Writes a built-in network as a module in the TF1 Hub format.

    Args:
      name: `mobilenet_v2_MMM_SSS`, see `pipeline.mobilenet.network.from_name`.
      directory: made if need be; must not hold a module yet.

    Raises:
      ModuleError: no network has this name.
    """
    network = from_name(name)
    import_tensorflow()
    write_tf1_hub(network, make_values(network), directory)


def make_values(network: Network) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the seeded weights and the batch-norm statistics that fit them: float32, by variable name."""
    values: dict[str, npt.NDArray[np.float32]] = {}

    def apply(layer: Layer, x: Array) -> Array:
        kernel = _kernel(layer)
        x = _rounded(_convolve(x, kernel, layer), _ACTIVATION_STEP)
        count = x.size // x.shape[-1]
        mean = (x.sum(axis=(0, 1, 2)) / count).astype(np.float32)
        variance = ((x * x).sum(axis=(0, 1, 2)) / count - np.square(mean, dtype=np.float64)).astype(np.float32)
        values[layer.weights] = kernel.astype(np.float32)
        values[layer.batch_norm("gamma")] = np.ones_like(mean)
        values[layer.batch_norm("beta")] = np.full_like(mean, _BETA)
        values[layer.batch_norm("moving_mean")] = mean
        values[layer.batch_norm("moving_variance")] = variance
        scale = 1 / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
        x = _rounded((x - mean) * scale + _BETA, _ACTIVATION_STEP)
        return np.clip(x, 0, 6) if layer.relu6 else x

    network.walk(_dead_leaves(network.image_size) * 2 - 1, apply)
    return values


def _kernel(layer: Layer) -> Array:
    if layer.depthwise:
        noise = _normal(layer.weights, layer.weights_shape)
        kernel = _LOW_PASS[:, :, np.newaxis, np.newaxis] + _DEPTHWISE_NOISE * noise
    else:
        fan_in = math.prod(layer.weights_shape[:3])
        kernel = _normal(layer.weights, layer.weights_shape) * math.sqrt(2 / fan_in)
    return _rounded(kernel, _KERNEL_STEP)


def _convolve(x: Array, kernel: Array, layer: Layer) -> Array:
    """Convolves [batch, height, width, channels] with SAME padding, which puts the odd row and column last."""
    size, stride = layer.kernel_size, layer.stride
    batch, height, width, _ = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    pad_height = max(0, (out_height - 1) * stride + size - height)
    pad_width = max(0, (out_width - 1) * stride + size - width)
    top, left = pad_height // 2, pad_width // 2
    x = np.pad(x, ((0, 0), (top, pad_height - top), (left, pad_width - left), (0, 0)))
    result = np.zeros((batch, out_height, out_width, layer.out_channels))
    for row in range(size):
        for column in range(size):
            shifted = x[:, row::stride, column::stride][:, :out_height, :out_width]
            if layer.depthwise:
                result += shifted * kernel[row, column, :, 0]
            else:
                result += shifted @ kernel[row, column]
    return result


def _dead_leaves(size: int) -> Array:
    """Returns images like photographs in their statistics: discs of all sizes that hide each other.

    The dead leaves model has the power spectrum and the edges of natural images (Lee, Mumford and Huang, "Occlusion
    models for natural images", 2001).

    Returns:
      [images, size, size, 3], multiples of 1/256 in [0, 1).
    """
    rows, columns = np.indices((size, size))
    numbers = _uniform("images", _IMAGES * (_DISCS + 1) * 6).reshape(_IMAGES, _DISCS + 1, 6)
    images = np.empty((_IMAGES, size, size, 3))
    for image, discs in zip(images, numbers, strict=True):
        image[:] = discs[0, :3] // 256
        for row, column, radius, *colour in discs[1:]:
            # Radii between size/32 and size/2 whose inverse is uniform: as many small areas as large ones.
            radius = size * 65536 // (2 * 65536 + 30 * radius)
            inside = (rows - row * size // 65536) ** 2 + (columns - column * size // 65536) ** 2 < radius**2
            image[inside] = np.array(colour) // 256
    return images / 256


def _normal(name: str, shape: tuple[int, ...]) -> Array:
    """Returns nearly normal numbers of mean 0 and variance 1: sums of four uniform ones."""
    sums: Array = _uniform(name, 4 * math.prod(shape)).reshape(*shape, 4).sum(axis=-1).astype(np.float64)
    return (sums - 2.0 * 65535) / math.sqrt((65536**2 - 1) / 3)


def _uniform(name: str, count: int) -> npt.NDArray[np.int64]:
    """Returns integers from 0 to 65535, seeded by `name`."""
    stream = hashlib.shake_256(f"untrained {VERSION} {name}".encode()).digest(2 * count)
    return np.frombuffer(stream, "<u2").astype(np.int64)


def _rounded(x: Array, step: float) -> Array:
    rounded: Array = np.rint(x / step) * step
    return rounded
