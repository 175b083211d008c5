"""Small data sets with images, for the tests of pages about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.failures import Failure
from pipeline.core.records import Feature
from pipeline.dataset.tables import InputEntry
from pipeline.testing import jpeg_bytes
from tests.datasets import add_wave, entry, make_batch

HOSTILE = "</script><script>window.hacked = 1</script>\"'><img src=x onerror='window.hacked = 2'>&amp;@{x}"
"""A key or label that becomes code on a page that does not escape it."""


def vectors_by_angle(names: Sequence[str]) -> dict[str, list[float]]:
    """Returns vectors on an arc, in the order of the names: the nearest to each one are those beside it."""
    angles = np.linspace(0, 1, len(names)) ** 1.5
    return {name: [float(np.cos(angle)), float(np.sin(angle)), 0.0] for name, angle in zip(names, angles, strict=True)}


def write_images(directory: Path, names: Sequence[str]) -> list[InputEntry]:
    """Writes images to numbered files; returns the inputs of a wave, which have the given names."""
    directory.mkdir(parents=True, exist_ok=True)
    inputs = []
    for index, name in enumerate(names):
        path = directory / f"{index:03d}.jpg"
        path.write_bytes(jpeg_bytes(seed=index))
        inputs.append(InputEntry(str(path), name, path.stat().st_size, 1.5, 1, "name"))
    return inputs


def make_dataset(directory: Path, names: Sequence[str], labels: Sequence[str] = ()) -> Path:
    """Makes a data set of images on an arc, with a label for each, and a failure with a hostile key."""
    output = directory / "out"
    vectors = vectors_by_angle(names)
    labels = labels or ["even" if index % 2 == 0 else "odd" for index in range(len(names))]
    batches = [
        make_batch({name: vectors[name]}, features={"label": Feature("bytes", (label.encode(),))})
        for name, label in zip(names, labels, strict=True)
    ]
    failure = Failure(HOSTILE.encode(), f"/in/{HOSTILE}", "decode", "truncated", HOSTILE)
    inputs = [*write_images(directory / "in", names), entry("failed.jpg")]
    add_wave(output, "00000", *batches, make_batch({}, [failure]), inputs=inputs)
    return output
