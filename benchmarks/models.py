"""Compares runs with the models' own frameworks: `python -m benchmarks.models [--input PATTERN] [--images 50]`.

The reference decodes, resizes and scales the same photos without this pipeline: with TensorFlow, Keras or Pillow. It
computes the vectors with TensorFlow, Keras or ONNX Runtime. The exit code is 1 if a model misses its bar. Needs the
packages of the tests; all weights are random, unless `--module` says otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pipeline
from benchmarks import data
from benchmarks.run import DEFAULT_MODULE, prepare_task
from benchmarks.vectors import read_vectors, relative_differences
from pipeline.core.config import RunConfig
from pipeline.core.quiet import import_tensorflow
from pipeline.dataset.metadata import read_spec
from pipeline.images.decoder import ImageDecoder
from tests.model_formats.models import CNN, VIT, runtime_vectors
from tests.odd_modules import write_odd_module

VECTOR_BAR = 1e-4
PIXEL_BARS = (1.0, 2.0)
"""Largest differences from Pillow in the mean and in one pixel, in levels of 255, where pixels are antialiased."""
KERAS_SIZE = 224


@dataclass(frozen=True)
class Model:
    """A model and its reference.

    Attributes:
      handle: of the module.
      reference: returns the vectors float32 [N, D] of encoded images.
      flags: of the run.
      pixels: returns float32 [N, 3, height, width] as the reference feeds them, if the pixels' bar counts, too.
    """

    handle: str
    reference: Callable[[Sequence[bytes]], np.ndarray]
    flags: Mapping[str, str] = field(default_factory=dict)
    pixels: Callable[[Sequence[bytes]], np.ndarray] | None = None


@dataclass(frozen=True)
class Result:
    """The differences of a run from its reference.

    Attributes:
      label: of the model.
      engine: of the run.
      median: of the images' relative L2 differences.
      largest: of the same.
      levels: mean and largest difference of the pixels, in levels of 255, if they count.
    """

    label: str
    engine: str
    median: float
    largest: float
    levels: tuple[float, float] | None = None

    @property
    def is_within(self) -> bool:
        """Whether all vectors are within their bar, or the pixels are within theirs."""
        pixels = self.levels is not None and all(np.less_equal(self.levels, PIXEL_BARS))
        return self.largest <= VECTOR_BAR or pixels


def tensorflow_pixels(images: Sequence[bytes], size: tuple[int, int]) -> Any:
    """Returns float32 [N, height, width, 3] from 0 to 255, as TensorFlow decodes and resizes."""
    tf = _tensorflow()
    decoded = (tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE") for image in images)
    return tf.stack([tf.image.resize(tf.cast(item, tf.float32), size) for item in decoded])


def clip_pixels(images: Sequence[bytes]) -> np.ndarray:
    """Returns the pixels that `preprocessor_config.json` of the small vision transformer describes, by Pillow."""
    side = _clip("crop_size")["height"]
    found = []
    for encoded in images:
        with Image.open(io.BytesIO(encoded)) as image:
            scaled = [length * side // min(image.size) for length in image.size]
            left, top = ((length - side) // 2 for length in scaled)
            resized = image.convert("RGB").resize(scaled, Image.Resampling.BICUBIC)
        levels = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32) / 255
        found.append((levels - _clip("image_mean")) / _clip("image_std"))
    return np.stack(found).transpose(0, 3, 1, 2).astype(np.float32)


def hub_model(directory: Path, handle: str) -> Model:
    """Returns a module of TensorFlow Hub's image conventions."""
    return Model(handle, lambda images: _hub_vectors(handle, images))


def keras_model(name: str, directory: Path) -> Model:
    """Exports a network of Keras by Keras itself."""
    _tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    size = (KERAS_SIZE, KERAS_SIZE)
    network = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg", input_shape=(*size, 3))
    network.export(directory, verbose=False)
    return Model(str(directory), lambda images: np.asarray(network(tensorflow_pixels(images, size), training=False)))


def odd_model(signature: str, vectors: Callable[[str, Sequence[bytes]], np.ndarray], directory: Path) -> Model:
    """Returns a signature of the odd module of the tests."""
    module = str(write_odd_module(directory))
    return Model(module, lambda images: vectors(module, images), {"signature": signature})


def onnx_cnn(directory: Path, handle: str) -> Model:
    return Model(str(CNN), _cnn_vectors, {"preprocess": "hub"})


def onnx_vit(directory: Path, handle: str) -> Model:
    def vectors(images: Sequence[bytes]) -> np.ndarray:
        return runtime_vectors(VIT, clip_pixels(images), "image_embeds")

    return Model(str(VIT.parent), vectors, pixels=clip_pixels)


def run_model(label: str, model: Model, images: Sequence[bytes], scratch: Path) -> Result:
    """Runs the pipeline on images and compares its vectors, and the pixels if they count."""
    photos = data.write_files(images, len(images), scratch / "photos")
    output = scratch / "output"
    pipeline.run(RunConfig.from_flags(input=photos, output=str(output), module=model.handle, **model.flags))
    found = read_vectors(output, len(images))
    spec = read_spec(str(output))
    vectors = np.stack([found[key] for key in sorted(found)])
    differences = relative_differences(vectors, model.reference(images))
    levels = None
    if model.pixels is not None:
        prepared = spec.preprocessing
        decoder = ImageDecoder(prepared.height, prepared.width, transform=prepared.transform)
        ours = np.stack([decoder(image) for image in images]).transpose(0, 3, 1, 2)
        scale = 255 * np.array(_clip("image_std"))[:, None, None]
        apart = np.abs(ours - model.pixels(images)) * scale
        levels = (float(apart.mean()), float(apart.max()))
    return Result(label, spec.engine, float(np.median(differences)), float(differences.max()), levels)


def format_table(results: Sequence[Result]) -> str:
    """Returns the differences as a Markdown table."""
    lines = [
        "| model | engine | relative L2, median (max) | levels of 255, mean (max) | within the bar |",
        "| --- | --- | --- | --- | --- |",
    ]
    for item in results:
        levels = "" if item.levels is None else f"{item.levels[0]:.3f} ({item.levels[1]:.2f})"
        vectors = f"{item.median:.1e} ({item.largest:.1e})"
        lines.append(f"| {item.label} | {item.engine} | {vectors} | {levels} | {'yes' if item.is_within else 'no'} |")
    return "\n".join(lines)


def _tensorflow() -> Any:
    import_tensorflow()
    import tensorflow

    return tensorflow


def _clip(name: str) -> Any:
    return json.loads((VIT.parent / "preprocessor_config.json").read_text())[name]


def _hub_vectors(handle: str, images: Sequence[bytes]) -> np.ndarray:
    tf = _tensorflow()
    task = prepare_task(handle)
    signature = tf.saved_model.load(task.module, tags=list(task.tags)).signatures[task.signature]
    pixels = tensorflow_pixels(images, (task.height, task.width)) / 255
    return signature(**{task.input_key: pixels})[task.output_key].numpy()


def _uint8_vectors(module: str, images: Sequence[bytes]) -> np.ndarray:
    tf = _tensorflow()
    signature = tf.saved_model.load(module).signatures["uint8"]
    pixels = tf.cast(tf.round(tensorflow_pixels(images, (32, 32))), tf.uint8)
    return signature(images=pixels)["default"].numpy()


def _encoded_vectors(module: str, images: Sequence[bytes]) -> np.ndarray:
    tf = _tensorflow()
    return tf.saved_model.load(module).signatures["encoded"](images=tf.constant(list(images)))["default"].numpy()


def _cnn_vectors(images: Sequence[bytes]) -> np.ndarray:
    pixels = tensorflow_pixels(images, (64, 64)).numpy() / np.float32(255)
    return runtime_vectors(CNN, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


MODELS: Mapping[str, Callable[[Path, str], Model]] = {
    "card's format": hub_model,
    "Keras MobileNetV3Small": lambda directory, _: keras_model("MobileNetV3Small", directory),
    "Keras EfficientNetB0": lambda directory, _: keras_model("EfficientNetB0", directory),
    "uint8 input": lambda directory, _: odd_model("uint8", _uint8_vectors, directory),
    "encoded images": lambda directory, _: odd_model("encoded", _encoded_vectors, directory),
    "ONNX CNN, NCHW": onnx_cnn,
    "ONNX ViT, CLIP configuration": onnx_vit,
}
"""What makes each model, in an empty directory; the string is the handle of the module in the card's format."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.splitlines()[0])
    parser.add_argument("--input", action="append", default=[], metavar="PATTERN", help="photos; default: generated")
    parser.add_argument("--images", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--module", default=DEFAULT_MODULE, metavar="HANDLE", help=f"default: {DEFAULT_MODULE}")
    parser.add_argument("--only", action="append", default=[], choices=MODELS, metavar="LABEL", help="default: all")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(args)
    images = data.read_images(options.input) if options.input else data.generate_images(options.images)
    images = images[: options.images]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for label in options.only or MODELS:
            directory = Path(scratch, label, "model")
            directory.mkdir(parents=True)
            model = MODELS[label](directory, options.module)
            results.append(run_model(label, model, images, directory.parent))
    print(f"{len(images)} images")
    print(format_table(results))
    return 0 if all(item.is_within for item in results) else 1


if __name__ == "__main__":
    sys.exit(main())
