"""From vectors to the rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.core.failures import DamagedImage, Failure
from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.core.settings import Normalization
from pipeline.tfrecords.examples import embedding_rows


def make_batch(
    records: Sequence[ImageRecord],
    vectors: NDArray[np.float32],
    failures: Sequence[Failure],
    *,
    normalize: Normalization,
) -> EmbeddingBatch:
    """Returns the rows of embedded records, and the failures of records without a row.

    A vector with non-finite values becomes a failure.

    Args:
      records: the records that have a vector.
      vectors: float32 [N, D]; row i belongs to record i.
      failures: the failures of other records.
      normalize: `l2` scales each vector to length 1; a zero vector has no direction and stays as it is.
    """
    finite = np.logical_and.reduce(np.isfinite(vectors), axis=1)
    if not finite.all():
        failures = [*failures, *map(_nonfinite, _choose(records, ~finite), vectors[~finite])]
        records, vectors = _choose(records, finite), vectors[finite]
    if not len(records):
        return EmbeddingBatch((), tuple(failures), ())
    if normalize == "l2":
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    rows = embedding_rows(records, vectors)
    damaged = tuple(DamagedImage(record.key, record.source, record.damage) for record in records if record.damage)
    return EmbeddingBatch(rows, tuple(failures), tuple(record.source for record in records), damaged)


def _choose(records: Sequence[ImageRecord], chosen: NDArray[np.bool_]) -> list[ImageRecord]:
    return [record for record, is_chosen in zip(records, chosen, strict=True) if is_chosen]


def _nonfinite(record: ImageRecord, vector: NDArray[np.float32]) -> Failure:
    count = int(np.count_nonzero(~np.isfinite(vector)))
    text = f"{count} of {len(vector)} values of the vector are NaN or infinite"
    return Failure(record.key, record.source, "embed", "nonfinite", text)
