"""The vectors that a peer wrote: reads them, checks their keys, and compares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.tfrecords.examples import decode_rows
from pipeline.tfrecords.tfrecord import Record, read_records_sequential

Vectors = Mapping[str, np.ndarray]
"""float32 vectors by key."""


class WrongOutput(Exception):
    """A peer did not write exactly one vector for each image."""


@dataclass(frozen=True)
class Difference:
    """The relative L2 differences of vectors from those of the same keys in a reference: median and largest."""

    median: float
    largest: float


def read_vectors(output: Path, images: int) -> Vectors:
    """Returns the vectors in the TFRecord or Parquet files of an output directory.

    Args:
      output: the directory; that of a data set of this project has the files in `embeddings/`.
      images: number of images, whose keys are their numbers with 8 digits, maybe with the suffix of an image file.

    Raises:
      WrongOutput: there is not exactly one vector for each key.
    """
    directory = output / "embeddings" if (output / "embeddings").is_dir() else output
    rows = [row for path in sorted(directory.iterdir()) for row in _read_file(path)]
    vectors = {key.removesuffix(".jpg"): vector for key, vector in rows}
    missing = {f"{number:08d}" for number in range(images)} - vectors.keys()
    if missing or len(rows) != images:
        raise WrongOutput(f"{len(rows)} vectors were written for {images} images; {len(missing)} keys are missing")
    return vectors


def _read_file(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    tables: Iterable[pa.RecordBatch] = ()
    if path.suffix == ".parquet":
        tables = pq.read_table(path, columns=["key", "embedding"]).to_batches()
    elif path.suffix == ".tfrecord":
        with path.open("rb") as stream:
            items = list(read_records_sequential(stream))
        tables = decode_rows([item.data for item in items if isinstance(item, Record)])
    for table in tables:
        keys = table.column("key").cast(pa.string()).to_pylist()
        vectors = table.column("embedding").flatten().to_numpy().reshape(len(keys), -1)
        yield from zip(keys, vectors, strict=True)


def relative_differences(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the relative L2 difference of each row of [N, D] from that of a reference."""
    return np.linalg.norm(vectors - reference, axis=1) / np.linalg.norm(reference, axis=1)


def compare_vectors(vectors: Vectors, reference: Vectors) -> Difference:
    """Compares vectors with those of the same keys in a reference."""
    keys = sorted(reference)
    found = relative_differences(np.stack([vectors[key] for key in keys]), np.stack([reference[key] for key in keys]))
    return Difference(float(np.median(found)), float(found.max()))
