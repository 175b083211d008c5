"""The progress of a run: its status, and a thread that shows the status at intervals."""

from __future__ import annotations

import contextlib
import datetime
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.embedding.tally import Tally
from pipeline.inputs.base import UNKNOWN_BYTES

_log = logging.getLogger(__name__)

LOG_INTERVAL_S = 30.0
"""Time between two log lines."""
_LEAST_SHARE = 0.01
"""Share of the work below which the time left is not estimated."""

CountRecords = Callable[[], Tally]
"""Returns the counts of a job so far. May raise: a runner that does not answer must not end a run."""


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
      wave: number of the present wave, from 1.
      waves: number of waves.
      done: counts of the run so far; zeros if its runner does not count.
      seconds: time since the first wave started.
      share: share of the input bytes that are done, from 0 to 1.
    """

    wave: int
    waves: int
    done: Tally
    seconds: float
    share: float

    @property
    def images_per_second(self) -> float:
        """Average speed since the first wave started."""
        return self.done.embedded / max(self.seconds, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the end; None at the beginning."""
        return self.seconds * (1 - self.share) / self.share if self.share >= _LEAST_SHARE else None

    def __str__(self) -> str:
        parts = [f"wave {self.wave} of {self.waves}"] if self.waves > 1 else []
        if self.done.embedded or self.done.failed:
            parts.append(f"{self.done.embedded} embedded ({self.images_per_second:.0f} images/s)")
        if self.done.failed:
            parts.append(f"{self.done.failed} failed")
        parts.append(f"{format_duration(self.seconds)} so far")
        if self.seconds_left is not None:
            parts.append(f"about {format_duration(self.seconds_left)} left")
        return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Returns a duration such as `1:06:40`."""
    return str(datetime.timedelta(seconds=round(seconds)))


class Display(Protocol):
    """Shows the status of a run.

    Attributes:
      interval_s: time between two calls of `show`.
    """

    interval_s: float

    def __enter__(self) -> Display: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, status: Status) -> None:
        """Shows the present status; called in a thread of its own."""
        ...


class LogDisplay:
    """Logs the status."""

    interval_s = LOG_INTERVAL_S

    def __enter__(self) -> LogDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, status: Status) -> None:
        """See `Display`."""
        _log.info("%s", status)


class Progress:
    """The progress of a run. While entered, a thread shows the status at intervals."""

    def __init__(self, wave_bytes: Sequence[int], display: Display, unsized_files: Sequence[int] = ()) -> None:
        """Starts nothing yet.

        Args:
          wave_bytes: approximate number of input bytes of each wave.
          display: shows the status.
          unsized_files: number of images in each wave whose sizes `wave_bytes` assumes, if any.
        """
        self._wave_bytes = wave_bytes
        self._display = display
        self._unsized_files = tuple(unsized_files) or (0,) * len(wave_bytes)
        self._wave = 0
        self._before = Tally()  # of the committed waves
        self._count: CountRecords = Tally
        self._counted = Tally()  # of the present wave
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._display.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._display.__exit__(*error)

    def begin_wave(self) -> None:
        """Notes that the next wave starts."""
        self._wave += 1

    def end_wave(self, embedded: int, failed: int) -> None:
        """Notes the counts of the present wave, which is committed."""
        self._count, self._counted = Tally, Tally()
        self._before += Tally(embedded, failed)

    def count_with(self, count: CountRecords) -> None:
        """Sets the function that returns the counts of the present wave."""
        self._count = count

    @property
    def status(self) -> Status:
        """The status now."""
        with contextlib.suppress(Exception):  # of any runner
            self._counted = self._count()
        done_bytes = sum(self._wave_bytes[: self._wave - 1])
        if self._wave:
            records = self._counted.embedded + self._counted.failed
            assumed_bytes = min(records, self._unsized_files[self._wave - 1]) * UNKNOWN_BYTES
            done_bytes += min(max(self._counted.encoded_bytes, assumed_bytes), self._wave_bytes[self._wave - 1])
        return Status(
            wave=self._wave,
            waves=len(self._wave_bytes),
            done=self._before + self._counted,
            seconds=time.monotonic() - self._started,
            share=done_bytes / max(1, sum(self._wave_bytes)),
        )

    def _show(self) -> None:
        while not self._ended.wait(self._display.interval_s):
            self._display.show(self.status)
