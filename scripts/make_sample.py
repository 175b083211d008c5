"""Makes a small sample data set from two photographs in scikit-learn.

64 overlapping crops of different sizes, both as JPEG files (SAMPLE/images) and as TFRecords
(SAMPLE/records: features `image/encoded`, `image/key`, `image/label`, `image/size`). Four more
records are broken, to show how the pipeline reports failures.

Usage: python scripts/make_sample.py SAMPLE
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.core.records import Feature
from pipeline.tfrecords.examples import encode_example
from pipeline.tfrecords.framing import frame

CROPS_PER_PHOTO = 32
SHARDS = 4


def crops(photo: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Returns `count` overlapping crops of a photo uint8 [H, W, 3], with sides of 160 to 400 pixels."""
    random = np.random.RandomState(seed)
    height, width = photo.shape[:2]
    found = []
    for _ in range(count):
        h, w = random.randint(160, 401), random.randint(160, 401)
        top, left = random.randint(0, height - h + 1), random.randint(0, width - w + 1)
        found.append(photo[top : top + h, left : left + w])
    return found


def to_jpeg(pixels: np.ndarray) -> bytes:
    """Returns an image as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def to_example(key: str, image: bytes, label: int, size: tuple[int, int]) -> bytes:
    """Returns an image, its key, label and size as a serialized `tf.train.Example`."""
    return encode_example(
        {
            "image/encoded": Feature("bytes", (image,)),
            "image/key": Feature("bytes", (key.encode(),)),
            "image/label": Feature("int64", (label,)),
            "image/size": Feature("int64", size),
        }
    )


def main(directory: Path) -> None:
    """Writes the sample data set to a directory."""
    (directory / "images").mkdir(parents=True, exist_ok=True)
    (directory / "records").mkdir(parents=True, exist_ok=True)
    sample = load_sample_images()
    examples = []
    for label, (name, photo) in enumerate(zip(sample.filenames, sample.images, strict=True)):
        for index, pixels in enumerate(crops(photo, CROPS_PER_PHOTO, seed=label)):
            key, image = f"{Path(name).stem}-{index:02d}", to_jpeg(pixels)
            (directory / "images" / f"{key}.jpg").write_bytes(image)
            examples.append(to_example(key, image, label, pixels.shape[:2]))
    good = to_jpeg(sample.images[0][:200, :200])
    examples[10:10] = [
        to_example("broken-truncated", good[: len(good) // 2], 0, (200, 200)),
        to_example("broken-text", b"This is not an image.", 0, (0, 0)),
        to_example("broken-empty", b"", 0, (0, 0)),
        encode_example({"image/key": Feature("bytes", (b"broken-no-image",))}),
    ]
    for shard in range(SHARDS):
        path = directory / "records" / f"sample.tfrecord-{shard:05d}-of-{SHARDS:05d}"
        path.write_bytes(b"".join(map(frame, examples[shard::SHARDS])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
