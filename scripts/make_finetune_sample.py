"""Makes a small data set for fine-tuning from two photographs in scikit-learn.

Each of the 8 classes is a place in one of the photographs. Its images are crops around this place: rotated, sheared,
scaled and shifted, with varied colours and light, as JPEGs of 200x200 pixels. Features: `image/encoded`,
`image/key`, `image/label` (the class's number) and `image/class` (its name).

    SAMPLE/train-SSSSS-of-00004.tfrecord    100 images of each class, for training and validation
    SAMPLE/held_out.tfrecord                25 more of each class

Usage: python scripts/make_finetune_sample.py SAMPLE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.core.records import Feature
from pipeline.tfrecords.examples import encode_example
from pipeline.tfrecords.framing import frame

TRAIN_IMAGES_PER_CLASS = 100
HELD_OUT_IMAGES_PER_CLASS = 25
SHARDS = 4
SIDE = 200
PLACES = {
    "china.jpg": {"roof": (85, 205), "galleries": (250, 205), "lake": (225, 440), "bushes": (360, 470)},
    "flower.jpg": {"blossom": (225, 305), "leaf": (190, 70), "bud": (400, 375), "dark": (80, 540)},
}
"""The middle (row, column) of each class."""


def geometry(photo: np.ndarray, place: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """Returns a crop uint8 [SIDE, SIDE, 3] around a place: shifted, rotated, sheared and scaled."""
    angle, shear = np.deg2rad(random.uniform(-30, 30)), random.uniform(-0.2, 0.2)
    scale = random.uniform(0.7, 1.3) * np.array([1, random.uniform(0.85, 1.15)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) * scale
    middle = np.array(place[::-1]) + random.uniform(-25, 25, 2)
    offset = middle - matrix @ np.array([SIDE / 2, SIDE / 2])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    affine = np.column_stack([matrix, offset])
    return cv2.warpAffine(photo, affine, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REFLECT)


def colours(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns an image with mixed channels and with random gains, gamma, contrast and brightness."""
    image = pixels / 255.0
    mix = np.eye(3) + random.uniform(-0.25, 0.25, (3, 3))
    image = image @ (mix / mix.sum(axis=1, keepdims=True)).T * random.uniform(0.6, 1.4, 3)
    image = np.clip(image, 0, 1) ** random.uniform(0.6, 1.6)
    image = (image - 0.5) * random.uniform(0.6, 1.3) + 0.5 + random.uniform(-0.15, 0.15)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def examples(count: int, seed: int, prefix: str) -> Iterator[bytes]:
    """Yields `count` images of each class in turn, as serialized `tf.train.Example`s."""
    classes = [(load_sample_image(photo), name, place) for photo in PLACES for name, place in PLACES[photo].items()]
    random = np.random.default_rng(seed)
    for index in range(count):
        for label, (photo, name, place) in enumerate(classes):
            pixels = colours(geometry(photo, place, random), random)
            _, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            yield encode_example(
                {
                    "image/encoded": Feature("bytes", (encoded.tobytes(),)),
                    "image/key": Feature("bytes", (f"{prefix}-{label}-{index:03d}".encode(),)),
                    "image/label": Feature("int64", (label,)),
                    "image/class": Feature("bytes", (name.encode(),)),
                }
            )


def main(directory: Path) -> None:
    """Writes the data set to a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    train = list(examples(TRAIN_IMAGES_PER_CLASS, 0, "train"))
    per_shard = len(train) // SHARDS
    for shard in range(SHARDS):
        path = directory / f"train-{shard:05d}-of-{SHARDS:05d}.tfrecord"
        path.write_bytes(b"".join(map(frame, train[shard * per_shard : (shard + 1) * per_shard])))
    held_out = examples(HELD_OUT_IMAGES_PER_CLASS, 1, "held_out")
    (directory / "held_out.tfrecord").write_bytes(b"".join(map(frame, held_out)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
