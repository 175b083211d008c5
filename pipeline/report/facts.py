"""What the files of a data set say about it: its spec, its waves and its failures."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core.failures import Failure
from pipeline.dataset.metadata import Manifest, live, read_manifests, require_spec
from pipeline.dataset.reader import read_failures
from pipeline.embedding.dataset_spec import Preprocessing, Spec
from pipeline.report.text import show_key, show_text

EXAMPLES = 20
"""Failures of each reason that a page shows."""


@dataclass(frozen=True)
class Fact:
    """A name and its value, for people."""

    name: str
    value: str


@dataclass(frozen=True)
class WaveFacts:
    """A wave.

    Attributes:
      name: of the wave.
      started: its start time, UTC.
      embedded: number of its rows.
      failed: number of its failures.
      seconds: its duration.
    """

    name: str
    started: str
    embedded: int
    failed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Its speed; 0 if unknown."""
        return self.embedded / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class FailureExample:
    """A failure, with its texts in a form that can be shown."""

    key: str
    source: str
    message: str


@dataclass(frozen=True)
class FailureGroup:
    """The failures of one reason.

    Attributes:
      reason: of the failures.
      count: their number.
      examples: the first of them.
    """

    reason: str
    count: int
    examples: tuple[FailureExample, ...]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known about a data set without its vectors.

    Attributes:
      spec: of the data set.
      waves: the live ones, the oldest first.
      failures: those that count, by reason, the most frequent reason first.
      damaged: number of rows whose image was damaged.
    """

    spec: Spec
    waves: tuple[WaveFacts, ...]
    failures: tuple[FailureGroup, ...]
    damaged: int

    @property
    def failed(self) -> int:
        """Number of failures that count."""
        return sum(group.count for group in self.failures)

    @property
    def images_per_second(self) -> float:
        """Speed over all waves; 0 if unknown."""
        seconds = sum(wave.seconds for wave in self.waves)
        return sum(wave.embedded for wave in self.waves) / seconds if seconds else 0.0


def read_facts(output: str) -> DatasetFacts:
    """Returns what the files of a data set say about it.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    spec = require_spec(output)
    manifests = live(read_manifests(output))
    return DatasetFacts(
        spec=spec,
        waves=tuple(map(_wave, manifests)),
        failures=_groups(read_failures(output)),
        damaged=sum(manifest.damaged_but_embedded for manifest in manifests),
    )


def _wave(manifest: Manifest) -> WaveFacts:
    try:
        time = datetime.datetime.fromisoformat(manifest.started).astimezone(datetime.UTC)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        started = show_text(manifest.started)
    return WaveFacts(manifest.wave, started, manifest.embedded, manifest.failed, manifest.seconds)


def _groups(failures: Iterable[Failure]) -> tuple[FailureGroup, ...]:
    counts: Counter[str] = Counter()
    examples: dict[str, list[FailureExample]] = {}
    for failure in failures:
        counts[failure.reason] += 1
        if counts[failure.reason] <= EXAMPLES:
            shown = FailureExample(show_key(failure.key), show_text(failure.source), show_text(failure.message))
            examples.setdefault(failure.reason, []).append(shown)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(FailureGroup(reason, count, tuple(examples[reason])) for reason, count in ordered)


def describe_spec(spec: Spec) -> tuple[Fact, ...]:
    """Returns a spec as names and values, for people."""
    facts = [
        Fact("Module", show_text(spec.module)),
        Fact("Digest (SHA-256)", spec.module_sha256 or "unknown"),
        Fact("Signature and output", f"{show_text(spec.signature)} / {show_text(spec.output_key)}"),
        Fact("Values per vector", f"{spec.dimension:,} ({spec.dtype})"),
        Fact("Normalization", spec.normalization),
        Fact("Engine", f"{spec.engine}, {spec.precision}"),
        Fact("Preprocessing", _describe_preprocessing(spec.preprocessing)),
    ]
    if spec.pooling:
        facts.insert(3, Fact("Pooling", spec.pooling))
    if spec.parity is not None:
        facts.append(Fact("Difference from the module's framework", f"{spec.parity:.1e}, relative L2"))
    return tuple(facts)


def _describe_preprocessing(done: Preprocessing) -> str:
    if not done.height:
        return "by the module itself"
    low, high = done.value_range
    parts = [
        f"{done.height} x {done.width} pixels",
        f"{done.color} in [{low:.4g}, {high:.4g}]",
        done.resize,
        f"{done.decode} decoding",
        "turned upright by EXIF" if done.exif_orientation else "EXIF orientation ignored",
    ]
    if done.icc != "ignore":
        parts.append(f"colours converted to {done.icc}")
    return "; ".join(parts)
