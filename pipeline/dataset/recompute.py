"""The comparison of a share of a data set's rows with vectors that are computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_text
from pipeline.dataset.reader import read_embeddings
from pipeline.engines.parity import relative_difference

_NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Sample:
    """A share of all keys. A key is in it or not, whatever the other keys are.

    Attributes:
      share: of the keys, above 0 and at most 1.
      seed: another seed chooses other keys.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses a share out of range."""
        if not 0 < self.share <= 1:
            raise UsageError(f"--recompute={self.share:g} is not a share of the rows; it must be above 0 and at most 1")

    def holds(self, key: bytes) -> bool:
        """Returns whether a key is in the sample."""
        digest = hashlib.sha256(b"%d:%b" % (self.seed, key)).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2.0**64


@dataclass(frozen=True)
class Recomputation:
    """The result of the comparison.

    Attributes:
      rows: number of rows of the data set.
      sampled: number of keys in the sample.
      identical: number of keys with the same bits.
      close: number of keys with other bits, within the tolerance.
      different: number of keys beyond the tolerance.
      missing: number of keys without a new vector: the inputs do not have them, or their images fail.
      largest: the largest relative L2 difference.
      problems: one line for each key that is different or missing; the first ones only.
    """

    rows: int
    sampled: int
    identical: int
    close: int
    different: int
    missing: int
    largest: float
    problems: tuple[str, ...]


class StoredSample:
    """The rows of a data set in a sample, and the comparison with new vectors. Holds the vectors in memory.

    Attributes:
      rows: number of rows of the data set.
    """

    def __init__(self, output: str, sample: Sample) -> None:
        """Reads the rows.

        Args:
          output: directory of the data set.
          sample: of the keys.

        Raises:
          OutputError: there is no data set, or it is damaged.
          UsageError: the sample has none of the rows.
        """
        self.rows = 0
        self._stored: dict[bytes, list[NDArray[np.float32]]] = {}
        for batch in read_embeddings(output):
            self.rows += batch.num_rows
            for index, key in enumerate(batch.column("key").to_pylist()):
                if sample.holds(key):
                    vector = batch.column("embedding")[index].values.to_numpy()
                    self._stored.setdefault(key, []).append(vector.copy())
        if not self._stored:
            raise UsageError(
                f"--recompute={sample.share:g} chooses none of the {self.rows:,} rows of {output}; name a larger share"
            )
        self._differences: dict[bytes, float] = {}
        self._identical: set[bytes] = set()
        self._failures: dict[bytes, Failure] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._stored

    def add(self, keys: Iterable[bytes], vectors: NDArray[np.float32]) -> None:
        """Compares new vectors with the stored ones; of several rows with one key, with the nearest one.

        Args:
          keys: of the rows.
          vectors: float32 [N, D].
        """
        for key, vector in zip(keys, vectors, strict=True):
            for stored in self._stored[key]:
                if stored.tobytes() == vector.tobytes():
                    self._identical.add(key)
                difference = relative_difference(vector[np.newaxis], stored[np.newaxis])
                self._differences[key] = min(difference, self._differences.get(key, float("inf")))

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Notes records that have no new vector."""
        self._failures |= {failure.key: failure for failure in failures if failure.key in self._stored}

    def compare(self, tolerance: float) -> Recomputation:
        """Returns the result.

        Args:
          tolerance: the largest relative L2 difference of two vectors that count as equal.
        """
        different = {key: value for key, value in self._differences.items() if not value <= tolerance}
        missing = [key for key in self._stored if key not in self._differences]
        problems = [
            f"{key_to_text(key)}: the vector differs by {value:.1e}, relative L2; expected at most {tolerance:g}"
            for key, value in sorted(different.items())
        ]
        problems += [f"{key_to_text(key)}: {self._reason(key)}" for key in sorted(missing)]
        more = len(problems) - _NAMED_AT_MOST
        if more > 0:
            problems[_NAMED_AT_MOST:] = [f"and {more} more keys"]
        identical = len(self._identical - different.keys())
        return Recomputation(
            rows=self.rows,
            sampled=len(self._stored),
            identical=identical,
            close=len(self._differences) - identical - len(different),
            different=len(different),
            missing=len(missing),
            largest=max(self._differences.values(), default=0.0),
            problems=tuple(problems),
        )

    def _reason(self, key: bytes) -> str:
        failure = self._failures.get(key)
        if failure is None:
            return "none of the inputs has this key; name the inputs and the key feature of the run"
        return f"fails now: {failure.reason}: {failure.message}"
