"""Checks and rewrites a data set on many workers, one file at a time.

Only names, keys and reports cross a shuffle, never vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton, TaggedOutput

from pipeline.beam.read import CountedRecords
from pipeline.beam.worker_errors import carry_cause, carry_causes
from pipeline.core.errors import OutputError
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch
from pipeline.dataset.compact import current_batches
from pipeline.dataset.metadata import Manifest, TableEntry, live, read_manifest
from pipeline.dataset.reader import LiveWave, Shard, shards_of
from pipeline.dataset.superseded import KeyWaves, Superseded
from pipeline.dataset.verify import FileReport, check_shard, check_table, needs_keys, tables_of
from pipeline.embedding.dataset_spec import Spec
from pipeline.storage import filesystem

_COUNTS = "counts"
_MAIN = "main"
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Waves:
    """The waves of a data set, by name. Workers read the manifests, which may be too large to be part of a pipeline.

    Attributes:
      output: directory of the data set.
      every: names of all waves.
      live: names of the live waves.
      needs_keys: whether the keys of all rows must be read to find the superseded rows.
      formats: those that a compaction writes.
    """

    output: str
    every: tuple[str, ...]
    live: tuple[str, ...]
    needs_keys: bool
    formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, output: str, manifests: Sequence[Manifest], formats: tuple[str, ...] = ()) -> Waves:
        """Returns the waves of all manifests of a data set."""
        counting = live(manifests)
        every, names = (tuple(manifest.wave for manifest in group) for group in (manifests, counting))
        return cls(output, every, names, needs_keys(counting), formats)


@dataclass(frozen=True)
class Reports:
    """The reports on the files of a data set, as one file."""

    reports: tuple[FileReport, ...]


@dataclass
class CheckFiles(beam.PTransform):
    """Checks all files of a data set; returns a PCollection of `FileReport`, at least one for each file.

    Attributes:
      waves: of the data set.
      spec: of the data set.
    """

    waves: Waves
    spec: Spec

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Applies the transform to the root of a pipeline."""
        waves = self.waves
        names = root | "Waves" >> beam.Create(waves.every)
        tables = (
            names
            | "Tables" >> beam.ParDo(_TablesFn(waves.output))
            | "SpreadTables" >> beam.Reshuffle()
            | "CheckTables" >> beam.ParDo(_CheckTableFn(waves.output))
        )
        shards = names | "Shards" >> beam.ParDo(_ShardsFn(waves)) | "Spread" >> beam.Reshuffle()
        early, keys = tables, None
        if waves.needs_keys:
            keys, unreadable = shards | "RepeatedKeys" >> _RepeatedKeys(waves.output, self.spec)
            early = (tables, unreadable) | "EarlyReports" >> beam.Flatten()
        superseded = root | "Superseded" >> _FindSuperseded(waves, keys, early)
        checked = shards | "CheckShards" >> beam.ParDo(_CheckShardFn(waves.output, self.spec), AsSingleton(superseded))
        return (early, checked) | "Reports" >> beam.Flatten()


@dataclass
class ReadCurrent(beam.PTransform):
    """Reads the current rows and failures of a data set; returns `CountedRecords` of `EmbeddingBatch`.

    Attributes:
      waves: of the data set.
    """

    waves: Waves

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    def expand(self, root: beam.pvalue.PBegin) -> CountedRecords:
        """Applies the transform to the root of a pipeline."""
        waves = self.waves
        names = root | "Waves" >> beam.Create(waves.live)
        shards = names | "Shards" >> beam.ParDo(_ShardsFn(waves)) | "Spread" >> beam.Reshuffle()
        keys = None
        if waves.needs_keys:
            keys, _ = shards | "RepeatedKeys" >> _RepeatedKeys(waves.output)
        superseded = root | "Superseded" >> _FindSuperseded(waves, keys)
        read = beam.ParDo(_ReadCurrentFn(waves.output), AsSingleton(superseded)).with_outputs(_COUNTS, main=_MAIN)
        batches = shards | "Read" >> read
        return CountedRecords(batches[_MAIN], batches[_COUNTS])


class WriteReports(beam.PTransform):
    """Writes a PCollection of `FileReport` to one file, as `Reports`: not every runner returns a PCollection."""

    def __init__(self, path: str) -> None:
        """Prepares to write the file `path`, which the launcher can read."""
        super().__init__()
        self._path = path

    def expand(self, reports: beam.PCollection) -> beam.PCollection:
        """Applies the transform."""
        once = reports.pipeline | f"{self.label}/Once" >> beam.Impulse()
        return once | "Write" >> beam.Map(_WriteReports(self._path), AsIter(reports))


@dataclass(frozen=True)
class _WriteReports:
    path: str

    @carry_cause
    def __call__(self, _: bytes, reports: Iterable[FileReport]) -> None:
        filesystem.write_atomically(self.path, to_json(Reports(tuple(reports))))


class _RepeatedKeys(beam.PTransform):
    """Finds the keys that several waves hold; returns these with their `KeyWaves`, and reports on unreadable shards.

    Without a spec, an unreadable shard is an error.
    """

    def __init__(self, output: str, spec: Spec | None = None) -> None:
        super().__init__()
        self._keys = _KeysFn(output, spec)

    def expand(self, shards: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        read = shards | "Read" >> beam.ParDo(self._keys).with_outputs(_UNREADABLE, main=_MAIN)
        repeated = (
            read[_MAIN]
            | "Merge" >> beam.CombinePerKey(KeyWaves.merge)
            | "Repeated" >> beam.Filter(lambda item: item[1].oldest != item[1].newest)
        )
        return repeated, read[_UNREADABLE]


class _FindSuperseded(beam.PTransform):
    """Returns a PCollection of one `Superseded`, or of None if a report has a problem: nothing is counted then."""

    def __init__(
        self, waves: Waves, keys: beam.PCollection | None = None, reports: beam.PCollection | None = None
    ) -> None:
        super().__init__()
        self._find = _Find(waves)
        self._sides = [None if items is None else AsIter(items) for items in (keys, reports)]

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        return root | "Once" >> beam.Impulse() | "Find" >> beam.Map(self._find, *self._sides)


@dataclass(frozen=True)
class _Find:
    waves: Waves

    @carry_cause
    def __call__(
        self, _: bytes, keys: Iterable[tuple[bytes, KeyWaves]] | None, reports: Iterable[FileReport] | None
    ) -> Superseded | None:
        if any(report.problems for report in reports or ()):
            return None
        manifests = [read_manifest(self.waves.output, name) for name in self.waves.live]
        superseded = Superseded.of(self.waves.output, manifests)
        for key, waves in keys or ():
            superseded.add_waves(key, waves)
        return superseded


@carry_causes
class _TablesFn(beam.DoFn):
    def __init__(self, output: str) -> None:
        self._output = output

    def process(self, name: str) -> Iterator[TableEntry]:
        yield from tables_of(read_manifest(self._output, name))


@carry_causes
class _CheckTableFn(beam.DoFn):
    def __init__(self, output: str) -> None:
        self._output = output

    def process(self, entry: TableEntry) -> Iterator[FileReport]:
        yield check_table(self._output, entry)


@carry_causes
class _ShardsFn(beam.DoFn):
    def __init__(self, waves: Waves) -> None:
        self._output = waves.output
        self._live = frozenset(waves.live)
        self._formats = waves.formats

    def process(self, name: str) -> Iterator[Shard]:
        yield from shards_of(read_manifest(self._output, name), is_live=name in self._live, formats=self._formats)


class _LiveWaves:
    """The waves of the shards that a worker has seen; each wave reads its inputs at most once."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._superseded: Superseded | None = None
        self._waves: dict[str, LiveWave] = {}

    def wave_of(self, shard: Shard, superseded: Superseded) -> LiveWave:
        """Returns the wave of a shard, without the wave's other shards."""
        if superseded is not self._superseded:
            self._superseded, self._waves = superseded, {}
        name = shard.manifest.wave
        if name not in self._waves:
            self._waves[name] = LiveWave(self._output, shard.manifest, superseded, notes_keys=False)
        return self._waves[name]


@carry_causes
class _CheckShardFn(beam.DoFn):
    def __init__(self, output: str, spec: Spec) -> None:
        self._output = output
        self._spec = spec
        self._waves = _LiveWaves(output)

    def process(self, shard: Shard, superseded: Superseded | None) -> Iterator[FileReport]:
        is_counted = shard.is_counted and superseded is not None
        wave = self._waves.wave_of(shard, superseded) if is_counted and superseded is not None else None
        yield check_shard(self._output, shard.entry, self._spec, wave)


@carry_causes
class _ReadCurrentFn(beam.DoFn):
    def __init__(self, output: str) -> None:
        self._waves = _LiveWaves(output)

    def process(self, shard: Shard, superseded: Superseded) -> Iterator[EmbeddingBatch | TaggedOutput]:
        count = 0
        for batch in current_batches(self._waves.wave_of(shard, superseded), shard):
            count += batch.num_rows + len(batch.failures) if shard.is_counted else 0
            yield batch
        yield TaggedOutput(_COUNTS, count)


@carry_causes
class _KeysFn(beam.DoFn):
    def __init__(self, output: str, spec: Spec | None) -> None:
        self._output = output
        self._spec = spec

    def process(self, shard: Shard) -> Iterator[tuple[bytes, KeyWaves] | TaggedOutput]:
        if not shard.is_counted:
            return
        try:
            yield from self._keys(shard)
        except OutputError:
            report = None if self._spec is None else check_shard(self._output, shard.entry, self._spec)
            if report is None or not report.problems:  # keys would be missing although nothing is damaged
                raise
            yield TaggedOutput(_UNREADABLE, report)

    def _keys(self, shard: Shard) -> Iterator[tuple[bytes, KeyWaves]]:
        number = int(shard.manifest.wave)
        wave = LiveWave(self._output, shard.manifest, Superseded(), notes_keys=False)
        if shard.entry.kind == "failures":
            for failure in wave.failures_of(shard.entry):
                yield failure.key, KeyWaves.of_failure(failure, number)
        elif shard.entry.kind == "embeddings":
            waves = KeyWaves.of_row(number)
            for rows in wave.rows_of(shard.entry):
                for key in rows.column("key").to_pylist():
                    yield key, waves
