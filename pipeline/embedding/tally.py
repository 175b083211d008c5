"""Counts of embedded images, for the display of a run's progress."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of processed records. A retried bundle counts again, so they are no proof of completeness.

    Attributes:
      embedded: records that have a vector.
      failed: records that have a failure.
      encoded_bytes: encoded bytes of the images that were read.
    """

    embedded: int = 0
    failed: int = 0
    encoded_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.embedded + other.embedded, self.failed + other.failed, self.encoded_bytes + other.encoded_bytes
        )

    def __sub__(self, other: Tally) -> Tally:
        return self + Tally(-other.embedded, -other.failed, -other.encoded_bytes)


class TallyCounter:
    """A tally that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = Tally()

    @property
    def value(self) -> Tally:
        """The tally so far."""
        return self._value

    def add(self, tally: Tally) -> None:
        """Adds counts."""
        with self._lock:
            self._value += tally
