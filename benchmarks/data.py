"""The images of a benchmark: reads or generates them, and writes them to TFRecords, repeated as needed."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.find import find_inputs
from pipeline.testing import make_example
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.framing import frame

MAX_DISTINCT = 1000
GENERATED = 200
ROW_GROUP = 100
"""Number of images in a row group of a Parquet file: few, as tools that write image columns do, to bound memory."""


def read_images(patterns: Sequence[str], image_feature: str = "image/encoded") -> list[bytes]:
    """Returns the first encoded images of an input, at most `MAX_DISTINCT`."""
    images = []
    for file in find_inputs(InputConfig(tuple(patterns))).by_path():
        if file.kind == "images":
            images.append(Path(file.path).read_bytes())
        else:
            images.extend(_record_images(file.path, image_feature))
        if len(images) >= MAX_DISTINCT:
            break
    return images[:MAX_DISTINCT]


def _record_images(path: str, image_feature: str) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        for item in tfrecord.read_records(stream):
            if isinstance(item, tfrecord.Record):
                record = parse_example(item.data, address="", source="", image_feature=image_feature)
                if isinstance(record, ImageRecord):
                    yield record.image


def generate_images(count: int = GENERATED, side: int = 500) -> list[bytes]:
    """Returns JPEGs with the decoding cost of photos of 500x375 pixels: shapes, shading and noise at every scale.

    Args:
      count: number of images.
      side: length of the longer side, in pixels.
    """
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        short = side * 3 // 4
        height, width = (short, side) if rng.random() < 0.75 else (side, short)
        pixels = np.full((height, width, 3), 110, np.float32)
        # The spectrum of photos falls with 1/f: each octave is half as strong as the one before.
        for octave in range(1, 9):
            noise = rng.normal(0, 100 / 1.75**octave, (2**octave, 2**octave, 3)).astype(np.float32)
            pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(6):
            center = tuple(int(value) for value in rng.integers(0, side * 4 // 5, 2))
            colour = tuple(float(value) for value in rng.integers(0, 256, 3))
            cv2.circle(pixels, center, int(rng.integers(10, 90)) * side // 500, colour, -1, cv2.LINE_AA)
        pixels += rng.normal(0, 6, pixels.shape)
        _, encoded = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
        images.append(encoded.tobytes())
    return images


def write_tfrecords(images: Sequence[bytes], count: int, directory: Path, files: int = 4) -> tuple[str, ...]:
    """Writes `count` records to some files, repeating the images with new keys; returns the paths."""
    directory.mkdir(parents=True)
    paths = []
    for index, rows in enumerate(_shares(images, count, files)):
        path = directory / f"photos-{index:05d}-of-{files:05d}.tfrecord"
        with path.open("wb") as stream:
            for key, image in rows:
                stream.write(frame(make_example({"image/encoded": image, "id": key})))
        paths.append(str(path))
    return tuple(paths)


def write_tars(images: Sequence[bytes], count: int, directory: Path, files: int = 4) -> tuple[str, ...]:
    """Writes the same records to WebDataset tars, with the members `jpg` and `txt`, the key; returns the paths."""
    directory.mkdir(parents=True)
    paths = []
    for index, rows in enumerate(_shares(images, count, files)):
        path = directory / f"photos-{index:05d}-of-{files:05d}.tar"
        with tarfile.open(path, "w") as archive:
            for key, image in rows:
                for name, content in ((f"{key}.jpg", image), (f"{key}.txt", key.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        paths.append(str(path))
    return tuple(paths)


def write_parquet(
    images: Sequence[bytes], count: int, directory: Path, files: int = 4, row_group: int = ROW_GROUP
) -> tuple[str, ...]:
    """Writes the same records to Parquet files, with the columns `id` and `image`; returns the paths."""
    directory.mkdir(parents=True)
    paths = []
    for index, rows in enumerate(_shares(images, count, files)):
        path = directory / f"photos-{index:05d}-of-{files:05d}.parquet"
        keys, encoded = zip(*rows, strict=True)
        table = pa.table({"id": pa.array(keys, pa.string()), "image": pa.array(encoded, pa.binary())})
        # Photos are compressed already, and dictionaries of them are of no use.
        pq.write_table(table, path, row_group_size=row_group, compression="none", use_dictionary=False)
        paths.append(str(path))
    return tuple(paths)


def _shares(images: Sequence[bytes], count: int, files: int) -> Iterator[list[tuple[str, bytes]]]:
    """Yields the keys and images of each of some files."""
    numbered = enumerate(itertools.islice(itertools.cycle(images), count))
    for index in range(files):
        share = count * (index + 1) // files - count * index // files
        yield [(f"{number:08d}", image) for number, image in itertools.islice(numbered, share)]


def write_files(images: Sequence[bytes], count: int, directory: Path) -> str:
    """Writes `count` image files, repeating the images as hard links; returns the directory."""
    directory.mkdir(parents=True)
    for number in range(count):
        path = directory / f"{number:08d}.jpg"
        if number < len(images):
            path.write_bytes(images[number])
        else:
            path.hardlink_to(directory / f"{number % len(images):08d}.jpg")
    return str(directory)
