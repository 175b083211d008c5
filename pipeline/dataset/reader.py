"""Reading a data set: yields each current row and failure once, over all waves."""

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
    """Keys and inputs of newer waves. Matching rows and failures of older waves are ignored.

    Keys that are made of input names are compared by these names, which takes little memory. Keys from a feature or
    from a custom pipeline are stored one by one.
    """

    _names: set[bytes] = field(default_factory=set)
    _record_names: set[bytes] = field(default_factory=set)
    _keys: set[bytes] = field(default_factory=set)
    _failed: dict[bytes, set[str]] = field(default_factory=dict)
    _retried: set[str] = field(default_factory=set)
    _paths: set[str] = field(default_factory=set)

    def add(self, manifest: Manifest) -> None:
        """Adds the inputs and retried failures of a wave."""
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
        """Adds the keys of a wave's rows."""
        self._keys.update(rows.column("key").to_pylist())

    def add_failure(self, failure: Failure) -> None:
        """Adds the key of a wave's failure, which supersedes only rows of the same input."""
        self._failed.setdefault(failure.key, set()).update(_paths_of(failure))

    def holds(self, key: bytes, inputs: Set[str]) -> bool:
        """Returns whether newer waves supersede a row of an older wave.

        Args:
          key: the key of the row.
          inputs: the files that the row's wave covers.
        """
        return (
            key in self._keys or not inputs.isdisjoint(self._failed.get(key, ())) or self._is_named_like_an_input(key)
        )

    def holds_failure(self, failure: Failure, *, by_key: bool) -> bool:
        """Returns whether a newer wave has read the input of a failure again, or has retried its record.

        Args:
          failure: the failure of an older wave.
          by_key: whether only the key identifies the record.
        """
        return (
            failure.source in self._retried
            or key_to_text(failure.key) in self._retried  # written by earlier versions
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
    """Returns the possible inputs of a failure: its source, and the file of the source's address, if any."""
    address = Address.parse(failure.source)
    return (failure.source,) if address is None else (failure.source, address.path)


def _as_keys(name: str) -> set[bytes]:
    """Returns the keys of a name: its bytes, and the escaped form that Parquet has for bytes outside UTF-8."""
    key = key_to_bytes(name)
    return {key, key.decode("utf-8", "backslashreplace").encode()}


def read_embeddings(output: str | os.PathLike[str], *, sinks: Sequence[Sink] = ()) -> Iterator[pa.RecordBatch]:
    """Yields the committed rows of the data set in directory `output`; for a repeated key, those of the newest wave.

    Columns: `key` (binary), `embedding` (fixed_size_list<float32>[D]) and the copied features (lists of binary,
    float32 or int64). All rows of one wave with the same key are yielded.

    Args:
      output: directory of the data set.
      sinks: the sinks that wrote the data set, if they are not registered.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = filesystem.normalize(output)
    for wave in live_waves(output, sinks):
        yield from map(wave.current, wave.rows())


def read_failures(output: str) -> Iterator[Failure]:
    """Yields the committed failures of the data set in directory `output` that no newer wave has superseded.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = filesystem.normalize(output)
    for wave in live_waves(output):
        yield from wave.current_failures()


@dataclass(frozen=True)
class LiveWave:
    """One wave of a data set, with the keys and inputs of newer waves."""

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
        """Returns the rows of the wave that no newer wave supersedes."""
        if not self.newer:
            return rows
        keep = [not self.newer.holds(key, self._inputs) for key in rows.column("key").to_pylist()]
        return rows if all(keep) else rows.filter(pa.array(keep))

    def current_failures(self) -> Iterator[Failure]:
        """Yields the wave's failures that no newer wave has superseded."""
        by_key = _is_of_another_pipeline(self.manifest)
        for failure in self.failures():
            if not self.newer.holds_failure(failure, by_key=by_key):
                yield failure

    @functools.cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(entry.path for entry in self.manifest.inputs)


def live_waves(output: str, sinks: Sequence[Sink] = ()) -> Iterator[LiveWave]:
    """Yields the live waves of a data set, the newest first.

    All waves share one `newer`, which grows during the iteration.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    manifests = live(read_manifests(output))
    if not manifests and read_spec(output) is None:
        raise OutputError(f"{output} holds no data set: it has no {SPEC_NAME}; name the --output of a run")
    from_names = all(map(_has_keys_from_names, manifests))
    newer = Superseded()
    for index, manifest in enumerate(reversed(manifests), start=1):
        wave = LiveWave(output, manifest, newer, sinks)
        yield wave
        newer.add(manifest)
        if not from_names and index < len(manifests):
            for rows in wave.rows():
                newer.add_rows(rows)
            for failure in wave.failures():
                newer.add_failure(failure)


def _has_keys_from_names(manifest: Manifest) -> bool:
    """Returns whether the input names of a wave determine the keys of its rows, which then need no comparison."""
    if _is_of_another_pipeline(manifest):
        return False
    return manifest.key_feature is None or {entry.keys for entry in manifest.inputs} == {"name"}


def _is_of_another_pipeline(manifest: Manifest) -> bool:
    """Returns whether a custom pipeline wrote the wave; its manifest then does not list the inputs."""
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
