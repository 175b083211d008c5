"""A seeded sample of the rows of a data set, read in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.dataset.reader import read_embeddings


@dataclass(frozen=True)
class VectorSample:
    """Rows of a data set, sorted by key.

    Attributes:
      keys: of the rows.
      vectors: float32 [N, D].
      columns: the copied features of the rows; null where a row has none.
      total: number of rows of the data set.
    """

    keys: tuple[bytes, ...]
    vectors: NDArray[np.float32]
    columns: pa.Table
    total: int


def read_sample(output: str, dimension: int, limit: int, seed: int) -> VectorSample:
    """Returns at most `limit` rows of a data set.

    The rows are those whose keys have the smallest seeded hashes: the sample does not depend on the order of the rows.
    The memory holds at most three times `limit` rows.

    Args:
      output: directory of the data set.
      dimension: length of a vector.
      limit: number of rows to return, if there are so many.
      seed: another seed chooses other rows.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    smallest = _SmallestHashes(limit)
    total = 0
    for rows in read_embeddings(output):
        total += rows.num_rows
        for start in range(0, rows.num_rows, limit):
            part = rows.slice(start, limit)
            smallest.add(part, _hashes(part.column("key").to_pylist(), seed))
    rows = smallest.rows()
    if rows is None:
        return VectorSample((), np.zeros((0, dimension), np.float32), pa.table({}), total)
    rows = rows.sort_by("key")
    vectors = rows.column("embedding").combine_chunks()
    return VectorSample(
        keys=tuple(rows.column("key").to_pylist()),
        vectors=to_vectors(vectors, dimension),
        columns=rows.drop_columns(["key", "embedding"]),
        total=total,
    )


def to_vectors(column: pa.Array, dimension: int) -> NDArray[np.float32]:
    """Returns a column of vectors as float32 [N, `dimension`]."""
    vectors: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
    return vectors


class _SmallestHashes:
    """Keeps the rows with the smallest hashes among all rows that are added."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threshold = np.iinfo(np.uint64).max
        self._hashes: list[NDArray[np.uint64]] = []
        self._rows: list[pa.RecordBatch] = []
        self._count = 0

    def add(self, rows: pa.RecordBatch, hashes: NDArray[np.uint64]) -> None:
        """Adds at most `limit` rows."""
        chosen = hashes <= self._threshold
        self._hashes.append(hashes[chosen])
        self._rows.append(rows.filter(pa.array(chosen)))
        self._count += int(chosen.sum())
        if self._count > 2 * self._limit:
            self._prune()

    def rows(self) -> pa.Table | None:
        """Returns the rows, in the order in which they were added; None if there are none."""
        self._prune()
        tables = [pa.Table.from_batches([rows]) for rows in self._rows if rows.num_rows]
        return pa.concat_tables(tables, promote_options="permissive") if tables else None

    def _prune(self) -> None:
        if self._count <= self._limit:
            return
        self._threshold = np.partition(np.concatenate(self._hashes), self._limit - 1)[self._limit - 1]
        kept = list(self._kept())
        self._hashes = [hashes for hashes, _ in kept]
        self._rows = [rows for _, rows in kept]
        self._count = sum(len(hashes) for hashes in self._hashes)

    def _kept(self) -> Iterator[tuple[NDArray[np.uint64], pa.RecordBatch]]:
        left = self._limit  # rows with one key have one hash: the first of them are kept
        for hashes, rows in zip(self._hashes, self._rows, strict=True):
            chosen = np.flatnonzero(hashes <= self._threshold)[:left]
            left -= len(chosen)
            if len(chosen):
                yield hashes[chosen], rows.take(pa.array(chosen))


def _hashes(keys: list[bytes], seed: int) -> NDArray[np.uint64]:
    start = hashlib.blake2b(b"%d:" % seed, digest_size=8)
    found = bytearray()
    for key in keys:
        hasher = start.copy()
        hasher.update(key)
        found += hasher.digest()
    return np.frombuffer(bytes(found), np.uint64)
