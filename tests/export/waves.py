"""A data set of two waves, as a folder of 250 images leaves it that changes between two runs, and its readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.failures import Failure
from pipeline.core.records import EmbeddingBatch, Feature, ImageRecord
from pipeline.dataset.commit import commit_wave
from pipeline.dataset.metadata import read_spec
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.tables import InputEntry
from pipeline.tfrecords.examples import embedding_rows
from tests.datasets import SPEC, make_header, stage, unlocked

DIMENSION = 64
SHARDS = 5
CHANGED = ("010.jpg", "011.jpg", "012.jpg", "013.jpg", "014.jpg")
NEW = ("250.jpg", "251.jpg", "252.jpg")
GONE = "100.jpg"
BROKEN = "200.jpg"


def vector(name: str, version: int = 0) -> np.ndarray:
    """Returns the vector of an image, float32 with all kinds of exponents."""
    seed = np.random.default_rng([int(name[:3]), version])
    return (seed.standard_normal(DIMENSION) * 10.0 ** seed.integers(-30, 30, DIMENSION)).astype(np.float32)


def add_images(
    output: Path, wave: str, names: Sequence[str], *, version: int = 0, broken: Sequence[str] = (), shards: int = 1
) -> None:
    """Commits a wave of images in directory `images` beside a data set, and creates those."""
    directory, images = unlocked(output), output.parent / "images"
    images.mkdir(exist_ok=True)
    if read_spec(str(output)) is None:
        write_spec(directory, dataclasses.replace(SPEC, dimension=DIMENSION))
    inputs = []
    for name in (*names, *broken):
        (images / name).write_bytes(b"image")
        inputs.append(InputEntry(str(images / name), name, 5, 1.5, 1, "name"))
    batches = []
    for part in np.array_split(np.array(names), shards):
        records = [
            ImageRecord(
                name.encode(),
                "",
                b"",
                {
                    "image/label": Feature("int64", (int(name[:3]),)),
                    "title": Feature("bytes", (f"image {name}".encode(),)),
                },
            )
            for name in map(str, part)
        ]
        vectors = np.array([vector(str(name), version) for name in part])
        sources = tuple(str(images / str(name)) for name in part)
        batches.append(EmbeddingBatch(embedding_rows(records, vectors), (), sources))
    failures = tuple(Failure(name.encode(), str(images / name), "decode", "truncated", "cut") for name in broken)
    if failures:
        batches.append(EmbeddingBatch((), failures, ()))
    staged = [bundle for batch in batches for bundle in stage(directory, batch, wave=wave, formats=("parquet",))]
    commit_wave(directory, make_header(directory, wave, inputs=inputs), staged)


def first_wave(output: Path) -> None:
    """Commits 250 images."""
    add_images(output, "00000", [f"{index:03d}.jpg" for index in range(250)], shards=SHARDS)


def second_wave(output: Path) -> None:
    """Commits 5 changed and 3 new images, and one that no longer decodes; one of the first wave is gone."""
    add_images(output, "00001", [*CHANGED, *NEW], version=1, broken=[BROKEN])
    (output.parent / "images" / GONE).unlink()


def expected(*, existing_only: bool = False) -> dict[str, bytes]:
    """Returns the vectors after the second wave by key, to the bit."""
    names = {f"{index:03d}.jpg": 0 for index in range(250)} | dict.fromkeys((*CHANGED, *NEW), 1)
    del names[BROKEN]
    if existing_only:
        del names[GONE]
    return {name: vector(name, version).tobytes() for name, version in names.items()}


def by_key(keys: Sequence[str], vectors: object) -> dict[str, bytes]:
    """Returns vectors by key, to the bit; no key may come twice."""
    found = {key: np.asarray(item, np.float32).tobytes() for key, item in zip(keys, vectors, strict=True)}
    assert len(found) == len(keys)
    return found
