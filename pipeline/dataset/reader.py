"""Reading a data set: yields each current row and failure once, over all waves."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import pyarrow as pa

from pipeline.core.errors import OutputError
from pipeline.core.failures import DamagedImage, Failure
from pipeline.core.settings import TIMESTAMP_COLUMN
from pipeline.dataset.metadata import SPEC_NAME, Manifest, OutputEntry, live, read_manifests, read_spec
from pipeline.dataset.sinks.base import ShardKind, Sink, find_sink
from pipeline.dataset.sinks.parquet_schema import TIMESTAMP_TYPE
from pipeline.dataset.sinks.registry import SINKS
from pipeline.dataset.superseded import Superseded
from pipeline.dataset.tables import read_entries
from pipeline.storage import filesystem

_Line = TypeVar("_Line", Failure, DamagedImage)


def read_embeddings(output: str | os.PathLike[str], *, sinks: Sequence[Sink] = ()) -> Iterator[pa.RecordBatch]:
    """Yields the committed rows of the data set in directory `output`; for a repeated key, those of the newest wave.

    Columns: `key` (binary), `embedding` (fixed_size_list<float32>[D]) and the copied features: lists of binary, float32
    or int64, and in Parquet the types of a Parquet input's columns. All rows of one wave with the same key are yielded.

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


def read_damaged(output: str) -> Iterator[DamagedImage]:
    """Yields the current rows of the data set in directory `output` whose images are damaged.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = filesystem.normalize(output)
    for wave in live_waves(output):
        for entry in wave.manifest.files("damaged"):
            yield from filter(wave.is_current, wave.damaged_of(entry))


class LiveWave:
    """One wave of a data set, and the rows of it that count.

    Attributes:
      manifest: of the wave.
      entries: the files of its rows, in the format that is read.
    """

    def __init__(
        self,
        output: str,
        manifest: Manifest,
        superseded: Superseded,
        sinks: Sequence[Sink] = (),
        *,
        notes_keys: bool,
        preferred: Sequence[str] = SINKS.names,
    ) -> None:
        """Wraps a wave.

        Args:
          output: directory of the data set.
          manifest: of the wave.
          superseded: rows and failures that do not count.
          sinks: the sinks that wrote the data set, if they are not registered.
          notes_keys: whether `close` adds the wave's keys to `superseded`.
          preferred: names of formats, the best one first; the rows are read in one of them.
        """
        self.manifest = manifest
        self._output = output
        self._superseded = superseded
        self._sinks = sinks
        self.entries = manifest.files("embeddings", preferred)
        self._number = int(manifest.wave)
        self._keys: set[bytes] | None = set() if notes_keys else None
        self._noted: set[str] = set()

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows that the wave wrote."""
        for entry in self.entries:
            yield from self.rows_of(entry)

    def rows_with_times(self, entry: OutputEntry) -> Iterator[pa.RecordBatch]:
        """Yields all rows of one shard of the wave, and the time of each in the column `event_timestamp`."""
        return map(self._with_time, self.rows_of(entry, lambda name: True))

    def columns(self, is_wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
        """Yields the key, the wanted columns and the time, `event_timestamp`, of all rows that the wave wrote."""
        for entry in self.entries:
            yield from self.columns_of(entry, is_wanted)

    def columns_of(self, entry: OutputEntry, is_wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
        """Yields what `columns` yields, of one shard of the wave."""
        return map(self._with_time, self.rows_of(entry, lambda name: name == TIMESTAMP_COLUMN or is_wanted(name)))

    def _with_time(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        index = rows.schema.get_field_index(TIMESTAMP_COLUMN)
        if index >= 0 and self.manifest.row_time is not None and rows.column(index).type == TIMESTAMP_TYPE:
            return rows
        if index >= 0:
            rows = rows.remove_column(index)
        return rows.append_column(TIMESTAMP_COLUMN, pa.repeat(pa.scalar(self.manifest.time, TIMESTAMP_TYPE), len(rows)))

    def rows_of(self, entry: OutputEntry, is_wanted: Callable[[str], bool] | None = None) -> Iterator[pa.RecordBatch]:
        """Yields all rows of one shard of the wave, with the key and all or the wanted columns."""
        for rows in read_shard(filesystem.join(self._output, entry.path), entry, self._sinks, is_wanted):
            if self._keys is not None:
                self._keys.update(rows.column("key").to_pylist())
            yield rows
        self._noted.add(entry.path)

    def failures(self) -> Iterator[Failure]:
        """Yields all failures that the wave wrote."""
        for entry in self.manifest.files("failures"):
            yield from self.failures_of(entry)

    def failures_of(self, entry: OutputEntry) -> Iterator[Failure]:
        """Yields all failures in one failures file of the wave."""
        yield from read_lines(filesystem.join(self._output, entry.path), Failure)

    def damaged_of(self, entry: OutputEntry) -> Iterator[DamagedImage]:
        """Yields all damaged images in one such file of the wave."""
        yield from read_lines(filesystem.join(self._output, entry.path), DamagedImage)

    def current(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Returns the rows of the wave that no newer wave supersedes."""
        return self._superseded.select(rows, self._number, self._inputs)

    def current_failures(self) -> Iterator[Failure]:
        """Yields the wave's failures that no newer wave has superseded."""
        return filter(self.is_current, self.failures())

    def is_current(self, item: Failure | DamagedImage) -> bool:
        """Returns whether no newer wave has superseded a failure, or the row of a damaged image, of the wave."""
        if isinstance(item, DamagedImage):
            return not self._superseded.holds_row(item.key, self._number, self._inputs)
        by_key = self.manifest.is_of_another_pipeline
        return not self._superseded.holds_failure(item, self._number, by_key=by_key)

    def close(self) -> None:
        """Adds the wave's keys to those that supersede older rows; reads only rows that were not read before."""
        if self._keys is None:
            return
        for entry in self.entries:
            if entry.path not in self._noted:
                for _ in self.rows_of(entry, lambda name: False):
                    pass
        self._superseded.add_keys(self._keys, self._number)
        self._keys = None
        for failure in self.failures():
            self._superseded.add_failure(failure, self._number)

    @functools.cached_property
    def _inputs(self) -> frozenset[str]:
        if self.manifest.has_keys_from_names:  # then nothing compares them
            return frozenset()
        return frozenset(entry.path for entry in read_entries(self._output, self.manifest))


@dataclass(frozen=True)
class Shard:
    """A file of rows, failures or damaged images, which can be read without the others of its wave.

    Attributes:
      manifest: of its wave, without the wave's outputs.
      entry: the file.
      is_counted: whether its rows or lines count: its wave is live, and the file has the format that readers prefer.
      formats: those that a compaction writes from its rows.
    """

    manifest: Manifest
    entry: OutputEntry
    is_counted: bool
    formats: tuple[str, ...] = ()


def shards_of(manifest: Manifest, *, is_live: bool, formats: Sequence[str] = ()) -> Iterator[Shard]:
    """Yields the files of a wave.

    Args:
      manifest: of the wave.
      is_live: whether the wave is live.
      formats: those that a compaction writes: each from the files in this format, or else in the preferred one.
    """
    kinds = get_args(ShardKind) if is_live else ()
    counted = {entry.path for kind in kinds for entry in manifest.files(kind)}
    sources = {name: manifest.files("embeddings", (name, *SINKS.names)) for name in formats if is_live}
    bare = dataclasses.replace(manifest, outputs=())
    for entry in manifest.outputs:
        written = tuple(name for name, entries in sources.items() if entry in entries)
        yield Shard(bare, entry, entry.path in counted, written)


def live_waves(output: str, sinks: Sequence[Sink] = ()) -> Iterator[LiveWave]:
    """Yields the live waves of a data set, the newest first; each must be used before the next one is taken.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    manifests = live_manifests(output)
    yield from waves_of(output, manifests, Superseded.of(output, manifests), sinks)


def live_manifests(output: str) -> tuple[Manifest, ...]:
    """Returns the manifests of the live waves of a data set, the oldest first.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    manifests = live(read_manifests(output))
    if not manifests and read_spec(output) is None:
        raise OutputError(f"{output} holds no data set: it has no {SPEC_NAME}; name the --output of a run")
    return manifests


def waves_of(
    output: str,
    manifests: Sequence[Manifest],
    superseded: Superseded,
    sinks: Sequence[Sink] = (),
    preferred: Sequence[str] = SINKS.names,
) -> Iterator[LiveWave]:
    """Yields live waves, the newest first; each must be used before the next one is taken.

    Args:
      output: directory of the data set.
      manifests: of all live waves, the oldest first.
      superseded: what their inputs supersede.
      sinks: the sinks that wrote the data set, if they are not registered.
      preferred: names of formats, the best one first.
    """
    from_names = all(manifest.has_keys_from_names for manifest in manifests)
    for index, manifest in enumerate(reversed(manifests), start=1):
        notes_keys = not (from_names or index == len(manifests))
        wave = LiveWave(output, manifest, superseded, sinks, notes_keys=notes_keys, preferred=preferred)
        yield wave
        wave.close()


def read_shard(
    path: str, entry: OutputEntry, sinks: Sequence[Sink] = (), is_wanted: Callable[[str], bool] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one shard: all columns of `Sink.read`, or those wanted as in `Sink.read_columns`.

    Raises:
      OutputError: the shard is damaged, or no sink reads its format.
    """
    try:
        sink = find_sink(entry.format, sinks)
        yield from sink.read(path) if is_wanted is None else sink.read_columns(path, is_wanted)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error


def read_failures_file(path: str) -> Iterator[Failure]:
    """Yields the failures in one failures file; see `read_lines`."""
    return read_lines(path, Failure)


def read_lines(path: str, kind: type[_Line]) -> Iterator[_Line]:
    """Yields the failures or damaged images in one of their files.

    Raises:
      OutputError: the file is damaged.
    """
    try:
        for line in filesystem.read_lines(path):
            yield kind.from_json(line.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error
