"""Finds the transform for which a network was made, for a module that declares none.

Two kinds of evidence count:

- Constants between the input and the first layer, such as those of Keras' `Rescaling` and `Normalization`: the input
  has the range that these constants bring to a usual one.
- The statistics of the first batch normalisation: under the right transform, the first layer's output on photos has
  about the mean and the variance that training saw.

A module without such evidence is refused: wrong pixels give vectors that look fine. The refusal says how the vectors of
the images differ under each range, which a person may judge.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ImageError, ModuleError
from pipeline.hub.named_transform import NamedTransform
from pipeline.hub.network_start import BatchStatistics, NetworkStart, read_start
from pipeline.hub.openvino_start import read_openvino_start
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.presets import CLIP, IMAGENET_MEAN, IMAGENET_STD
from pipeline.images.transforms.registry import PRESETS
from pipeline.model_formats.openvino_package import import_openvino, one_line, openvino_errors
from pipeline.model_formats.registry import MODEL_FORMATS, SAVED_MODEL_FORMATS
from pipeline.savedmodel.freezing import freeze
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.signatures import ImageSignature

IMAGES = 16
"""Images that are looked at."""
CANDIDATES = ("hub", "keras_tf", "raw255", "keras_torch", "keras_caffe")
"""The presets that may be found; other presets have the values of one of these, or their mean and std."""
_RANGES = ("hub", "keras_tf", "raw255")
"""Those that a network's own constants may follow."""
_MAX_DIVERGENCE = 0.75
"""Of the right transform: images of another kind than those of the training have other statistics, too."""
_MIN_RATIO = 3.0
"""Of the next transform's divergence; images of low contrast make one transform look like another."""
_TOLERANCE = 0.05
"""Of the ends of a range; some networks divide by 128 instead of 127.5."""
_BLACK_AND_WHITE = np.array([[0.0] * 3, [1.0] * 3])
_USUAL: tuple[NDArray[np.float64], ...] = (
    _BLACK_AND_WHITE,
    2 * _BLACK_AND_WHITE - 1,
    _BLACK_AND_WHITE - 0.5,
    _BLACK_AND_WHITE - np.array(IMAGENET_MEAN),
    (_BLACK_AND_WHITE - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD),
    (_BLACK_AND_WHITE - np.array(CLIP.mean)) / np.array(CLIP.std),
)
"""Values of black and white that first layers are trained with, [2, 3]."""


def detect_transform(
    module: Module, signature: ImageSignature, images: Iterable[bytes] = (), *, is_resize_known: bool = False
) -> NamedTransform:
    """Returns the transform for which a network was made.

    A network shows values, but not how images are resized. SavedModels that declare nothing come from Keras, where
    images are squashed; ONNX and OpenVINO models come from anywhere.

    Args:
      module: the module.
      signature: its function.
      images: encoded images of the run's input; without any, noise with the spectrum of photos takes their place.
      is_resize_known: whether the caller knows how images are resized, whatever the format of the module.

    Raises:
      ModuleError: the module cannot be loaded, or shows no evidence.
    """
    start = _read_start(module, signature)
    found: NamedTransform | str | None = _by_constants(start)
    levels = functools.cache(lambda: _levels(signature, images))
    if found is None and start.statistics is not None:
        found = _by_statistics(start.statistics, levels())
    unsaid = f"module {module.handle} does not say how its images are"
    if isinstance(found, NamedTransform):
        if is_resize_known or module.format in SAVED_MODEL_FORMATS:
            return found
        raise ModuleError(
            f"{unsaid} resized; its network shows their values ({found.source}); say --resize=squash or --resize=crop, "
            "or --preprocess, as the network was trained"
        )
    reason = found or "it has neither scaling constants at its input nor a batch normalisation after its first layer"
    raise ModuleError(
        f"{unsaid} scaled, and its network does not show it: {reason}{_reactions(start, levels())}; say "
        f"--preprocess={'|'.join(PRESETS.names)}, or a file, as the network was trained"
    )


def _read_start(module: Module, signature: ImageSignature) -> NetworkStart:
    if module.format in SAVED_MODEL_FORMATS:
        return read_start(freeze(module.path, signature), signature.fixed_batch_size)
    openvino = import_openvino()
    network = MODEL_FORMATS[module.format].load(module.path, module.model_file, signature)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return read_openvino_start(network.openvino_model(Path(scratch)))
    except openvino_errors(openvino) as error:
        raise ModuleError(f"OpenVINO cannot compute module {module.handle}: {one_line(error)}") from error


def _reactions(start: NetworkStart, levels: NDArray[np.float32]) -> str:
    """Returns how the network's vectors differ under each range, for the message of a refusal; or nothing.

    It is no evidence for a range: many networks tell images apart that are scaled wrongly.
    """
    try:
        texts = [f"{_difference(start.vectors(_values(PRESETS.load(name), levels)))} under {name}" for name in _RANGES]
    except ModuleError:
        return ""
    return f"; the vectors of {len(levels)} images differ by {', '.join(texts)} (relative L2)"


def _difference(vectors: NDArray[np.float32]) -> str:
    """Returns the median difference of two images' vectors, relative to their length."""
    if not np.isfinite(vectors).all():
        return "no finite number"
    first, second = np.triu_indices(len(vectors), 1)
    lengths = np.linalg.norm(vectors, axis=1)
    distances = np.linalg.norm(vectors[first] - vectors[second], axis=1)
    scale = np.maximum((lengths[first] + lengths[second]) / 2, np.finfo(np.float32).tiny)
    return f"{np.median(distances / scale) if len(scale) else 0:.2g}"


def _by_constants(start: NetworkStart) -> NamedTransform | None:
    """Returns the transform whose values the network's own constants bring to a usual range."""
    if not start.has_constants:
        return None
    fitting = [name for name in _RANGES if _is_usual(start, *PRESETS.load(name).input_range)]
    if len(fitting) != 1:
        return None
    transform: ImageTransform = PRESETS.load(fitting[0])
    low, high = transform.input_range
    text = f"preset {fitting[0]}: the network scales its input from [{low:g}, {high:g}] itself"
    return NamedTransform(transform, text)


def _is_usual(start: NetworkStart, low: float, high: float) -> bool:
    """Returns whether the constants bring a range to one that networks are trained with, in RGB order."""
    ends = np.stack([start.scale * low + start.offset, start.scale * high + start.offset])
    return any(np.abs(ends - values).max() < _TOLERANCE for values in _USUAL)


def _by_statistics(statistics: BatchStatistics, levels: NDArray[np.float32]) -> NamedTransform | str:
    """Returns the transform under which the first layer's output has the statistics of training, or why none has."""
    if statistics.is_untrained:
        return "its first batch normalisation has the statistics of an untrained network"
    scores = sorted((_divergence(statistics, _values(PRESETS.load(name), levels)), name) for name in CANDIDATES)
    (best, name), (second, other) = scores[:2]
    if best > _MAX_DIVERGENCE or second < _MIN_RATIO * best:
        return (
            "the statistics of its first batch normalisation fit none of "
            f"{', '.join(f'{name} ({score:.2g})' for score, name in scores)} clearly (0 is best)"
        )
    return NamedTransform(
        PRESETS.load(name),
        f"preset {name}: it fits the statistics of the first batch normalisation best "
        f"({best:.2g}; next {other}, {second:.2g}; 0 is best)",
    )


def _values(transform: ImageTransform, levels: NDArray[np.float32]) -> NDArray[np.float32]:
    ordered = levels[..., ::-1] if transform.channels == "bgr" else levels
    return ordered * np.asarray(transform.scale, np.float32) + np.asarray(transform.offset, np.float32)


def _divergence(statistics: BatchStatistics, values: NDArray[np.float32]) -> float:
    """Returns the median over channels of the divergence of the output's statistics from those of training.

    The divergence is that of Kullback and Leibler between normal distributions, in nats.
    """
    outputs = statistics.outputs(values)
    axes = tuple(axis for axis in range(outputs.ndim) if axis != statistics.channel_axis)
    mean, variance = outputs.mean(axis=axes, dtype=np.float64), outputs.var(axis=axes, dtype=np.float64)
    alive = statistics.variance > 1e-3 * np.median(statistics.variance)  # dead channels say nothing
    ratio = np.maximum(variance[alive] / statistics.variance[alive], 1e-12)
    distance = (mean[alive] - statistics.mean[alive]) ** 2 / statistics.variance[alive]
    return float(np.median(0.5 * (ratio + distance - 1 - np.log(ratio))))


def _levels(signature: ImageSignature, images: Iterable[bytes]) -> NDArray[np.float32]:
    """Returns images as levels, float32 [N, height, width, 3]."""
    decoder = ImageDecoder(signature.height, signature.width)
    decoded = list(itertools.islice(_decode_all(images, decoder), IMAGES))
    if not decoded:
        return noise_photos(signature.height, signature.width)
    return np.stack(decoded) * np.float32(255)


def _decode_all(images: Iterable[bytes], decoder: ImageDecoder) -> Iterable[NDArray[np.float32]]:
    for image in images:
        try:
            yield decoder(image)
        except ImageError:
            continue


def noise_photos(height: int, width: int) -> NDArray[np.float32]:
    """Returns noise with the spectrum, the mean and the spread of photos (Field 1987: amplitude 1/f).

    Returns:
      Levels, float32 [16, height, width, 3], in [0, 255]; always the same.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    # Channels of photos are alike: most of the noise is common to them.
    common, own = rng.standard_normal((IMAGES, height, width, 1)), rng.standard_normal((IMAGES, height, width, 3))
    spectrum = np.fft.rfft2(common + 0.3 * own, axes=(1, 2)) / frequency[..., None]
    noise = np.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
    noise = (noise - noise.mean()) / noise.std()
    photos: NDArray[np.float32] = (255 * (np.array(IMAGENET_MEAN) + 0.27 * noise)).clip(0, 255).astype(np.float32)
    return photos
