"""Reading a data set: its rows and failures, each once, whatever the number of waves that wrote them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.core.errors import OutputError
from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes, key_to_text
from pipeline.core.records import Address
from pipeline.dataset.metadata import SPEC_NAME, Manifest, OutputEntry, live, read_manifests, read_spec
from pipeline.dataset.sinks.base import Sink, find_sink
from pipeline.storage import filesystem


@dataclass
class Superseded:
    """What newer waves hold, so that what an older one holds of it no longer counts.

    Keys that are made of the inputs' names are compared by those names, which takes little memory;
    keys that come from a feature, or from somebody's own pipeline, are kept, each of them.
    """

    _names: set[bytes] = field(default_factory=set)
    _record_names: set[bytes] = field(default_factory=set)
    _keys: set[bytes] = field(default_factory=set)
    _failed: dict[bytes, set[str]] = field(default_factory=dict)
    _retried: set[str] = field(default_factory=set)
    _paths: set[str] = field(default_factory=set)

    def add(self, manifest: Manifest) -> None:
        """Takes the inputs and retried failures of a wave."""
        for entry in manifest.inputs:
            keys = manifest.keys_of(entry)
            if keys == "feature":
                self._paths.add(entry.path)
                continue
            self._names.update(_as_keys(entry.name))
            if keys == "offset":
                self._record_names.update(_as_keys(entry.name))
        self._retried.update(manifest.retried)

    def add_rows(self, rows: pa.RecordBatch) -> None:
        """Takes the keys of a wave's rows."""
        self._keys.update(rows.column("key").to_pylist())

    def add_failure(self, failure: Failure) -> None:
        """Takes the key of a wave's failure, which counts for the input that it is about."""
        self._failed.setdefault(failure.key, set()).update(_paths_of(failure))

    def holds(self, key: bytes, inputs: Set[str]) -> bool:
        """Says whether what an older wave has under a key counts no more.

        Args:
          key: the key of a row.
          inputs: the files that its wave covers.
        """
        return (
            key in self._keys or not inputs.isdisjoint(self._failed.get(key, ())) or self._is_named_like_an_input(key)
        )

    def holds_failure(self, failure: Failure, *, by_key: bool) -> bool:
        """Says whether a newer wave has read the input of a failure again, or has tried just its record.

        Args:
          failure: of an older wave.
          by_key: whether its key is all that is known of the record.
        """
        return (
            failure.source in self._retried
            or key_to_text(failure.key) in self._retried  # which earlier versions wrote
            or not self._paths.isdisjoint(_paths_of(failure))
            or self._is_named_like_an_input(failure.key)
            or (by_key and (failure.key in self._keys or failure.key in self._failed))
        )

    def _is_named_like_an_input(self, key: bytes) -> bool:
        if key in self._names:
            return True
        address = Address.parse(key_to_text(key)) if self._record_names and b"@" in key else None
        return address is not None and key_to_bytes(address.path) in self._record_names

    def __bool__(self) -> bool:
        return bool(self._names or self._keys or self._failed)


def _paths_of(failure: Failure) -> tuple[str, ...]:
    """Returns the input that a failure is about: its source, or the file in which that is a place."""
    address = Address.parse(failure.source)
    return (failure.source,) if address is None else (failure.source, address.path)


def _as_keys(name: str) -> set[bytes]:
    """Returns the keys that a name makes: its bytes, and what Parquet holds where they are not UTF-8."""
    key = key_to_bytes(name)
    return {key, key.decode("utf-8", "backslashreplace").encode()}


def read_embeddings(output: str | os.PathLike[str], *, sinks: Sequence[Sink] = ()) -> Iterator[pa.RecordBatch]:
    """Yields the committed rows of the data set in directory `output`; for a repeated key, the newest wave's.

    Columns: `key` (binary), `embedding` (fixed_size_list<float32>[D]) and the features that were
    passed through (lists of binary, float32 or int64). Rows of one wave that share a key are all kept.

    Args:
      output: directory of the data set.
      sinks: those that wrote it, if they are not registered.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = filesystem.normalize(output)
    for wave in live_waves(output, sinks):
        yield from map(wave.current, wave.rows())


def read_failures(output: str) -> Iterator[Failure]:
    """Yields the committed failures of the data set in directory `output` that no newer wave has made good.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = filesystem.normalize(output)
    for wave in live_waves(output):
        yield from wave.current_failures()


@dataclass(frozen=True)
class LiveWave:
    """One wave of a data set, and what the newer ones hold."""

    output: str
    manifest: Manifest
    newer: Superseded
    sinks: Sequence[Sink] = ()

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows that the wave wrote."""
        for entry in self.manifest.files("embeddings"):
            yield from read_shard(filesystem.join(self.output, entry.path), entry, self.sinks)

    def failures(self) -> Iterator[Failure]:
        """Yields all failures that the wave wrote."""
        for entry in self.manifest.files("failures"):
            yield from read_failures_file(filesystem.join(self.output, entry.path))

    def current(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Returns those of the wave's rows that no newer wave holds."""
        if not self.newer:
            return rows
        keep = [not self.newer.holds(key, self._inputs) for key in rows.column("key").to_pylist()]
        return rows if all(keep) else rows.filter(pa.array(keep))

    def current_failures(self) -> Iterator[Failure]:
        """Yields the wave's failures that no newer one has made good."""
        by_key = _is_of_another_pipeline(self.manifest)
        for failure in self.failures():
            if not self.newer.holds_failure(failure, by_key=by_key):
                yield failure

    @functools.cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(entry.path for entry in self.manifest.inputs)


def live_waves(output: str, sinks: Sequence[Sink] = ()) -> Iterator[LiveWave]:
    """Yields the waves of a data set that count, the newest first.

    What is `newer` grows as the iteration goes on.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    manifests = live(read_manifests(output))
    if not manifests and read_spec(output) is None:
        raise OutputError(f"{output} holds no data set: it has no {SPEC_NAME}; name the --output of a run")
    names_tell = all(map(_names_tell, manifests))
    newer = Superseded()
    for index, manifest in enumerate(reversed(manifests), start=1):
        wave = LiveWave(output, manifest, newer, sinks)
        yield wave
        newer.add(manifest)
        if not names_tell and index < len(manifests):
            for rows in wave.rows():
                newer.add_rows(rows)
            for failure in wave.failures():
                newer.add_failure(failure)


def _names_tell(manifest: Manifest) -> bool:
    """Says whether the names of a wave's inputs tell the keys of its rows, which need not be compared then."""
    if _is_of_another_pipeline(manifest):
        return False
    return manifest.key_feature is None or {entry.keys for entry in manifest.inputs} == {"name"}


def _is_of_another_pipeline(manifest: Manifest) -> bool:
    """Says whether a wave was written by somebody's own pipeline, which does not say what it read."""
    return not (manifest.inputs or manifest.retried) and bool(manifest.embedded or manifest.failed)


def read_shard(path: str, entry: OutputEntry, sinks: Sequence[Sink] = ()) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one shard.

    Raises:
      OutputError: the shard is damaged, or no sink reads its format.
    """
    try:
        yield from find_sink(entry.format, sinks).read(path)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error


def read_failures_file(path: str) -> Iterator[Failure]:
    """Yields the failures in one failures file.

    Raises:
      OutputError: the file is damaged.
    """
    try:
        for line in filesystem.read_bytes(path).decode("utf-8").splitlines():
            yield Failure.from_json(line)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error
