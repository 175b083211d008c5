"""Rewrites a data set without superseded rows."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.core.errors import OutputError, PipelineError
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch
from pipeline.core.settings import Compression
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import Manifest, live, main_format_of, next_wave, require_spec
from pipeline.dataset.ownership import remove_remains, remove_waves
from pipeline.dataset.reader import LiveWave, Shard, live_waves, shards_of
from pipeline.dataset.sinks.base import SinkSettings, find_sink, make_sinks
from pipeline.dataset.sinks.registry import SINKS
from pipeline.dataset.tables import INPUTS_SCHEMA, copy_inputs, stage_table
from pipeline.dataset.writer import BundleWriter
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.staged_file import WrittenFile
from pipeline.storage.tables import Scratch, read_batches


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction.

    Attributes:
      waves: number of waves that were merged into one.
      rows: number of rows kept.
      superseded: number of rows dropped.
    """

    waves: int
    rows: int
    superseded: int


@dataclass(frozen=True)
class CompactedWave:
    """The wave that a compaction writes.

    Attributes:
      header: of the wave.
      formats: of its rows.
      compression: of its TFRecord files.
    """

    header: WaveHeader
    formats: tuple[str, ...]
    compression: Compression


def rewrite_here(directory: LockedDirectory, target: CompactedWave) -> Manifest:
    """Writes and commits a compacted wave in this process; returns its manifest."""
    settings = SinkSettings(target.compression, to_json(require_spec(directory.path)))
    sinks = make_sinks(target.formats)
    with BundleWriter(directory, target.header.name, sinks, settings) as writer:
        for wave in live_waves(directory.path):
            for shard in shards_of(wave.manifest, is_live=True, formats=target.formats):
                for batch in current_batches(wave, shard):
                    writer.add(batch)
        staged = writer.close()
    return commit_wave(directory, target.header, [staged])


def current_batches(wave: LiveWave, shard: Shard) -> Iterator[EmbeddingBatch]:
    """Yields the current rows or failures of one file of a wave; nothing if a compaction does not read the file.

    Raises:
      OutputError: the file is damaged, or lacks rows.
    """
    rows, entry = 0, shard.entry
    if not (shard.formats if entry.kind == "embeddings" else shard.is_counted):
        return
    if entry.kind == "failures":
        for failure in wave.failures_of(entry):
            rows += 1
            if wave.is_current(failure):
                yield EmbeddingBatch((), (failure,), ())
    elif entry.kind == "damaged":
        for damaged in wave.damaged_of(entry):
            rows += 1
            if wave.is_current(damaged):
                yield EmbeddingBatch((), (), (), (damaged,))
    else:
        has_times = any(find_sink(name).has_times for name in shard.formats)
        for batch in wave.rows_with_times(entry) if has_times else wave.rows_of(entry):
            rows += batch.num_rows
            kept = wave.current(batch)
            if kept.num_rows:
                yield EmbeddingBatch((kept,), (), (), formats=shard.formats)
    if rows != entry.rows:  # the missing rows would be lost with the file
        raise OutputError(f"{entry.path} has {rows} rows, {entry.rows} in the manifest; run python -m pipeline.verify")


def compact(
    output: str,
    *,
    steal_lock: bool = False,
    rewrite: Callable[[LockedDirectory, CompactedWave], Manifest] = rewrite_here,
) -> Compaction:
    """Rewrites the current rows and failures of the data set in directory `output` as one new wave.

    The manifest of the new wave atomically replaces the old manifests; then the old files are removed. An interruption
    leaves the old or the new state, and stray files; another compaction, or `python -m pipeline.verify
    --delete_strays`, removes the strays.

    Args:
      output: directory of the data set.
      steal_lock: whether to take over from another process that seems to be alive.
      rewrite: writes and commits the new wave, and returns its manifest.

    Raises:
      OutputError: there is no data set, it is damaged, or another run is writing to it.
      OSError: a file cannot be read or written.
    """
    output = filesystem.normalize(output)
    require_spec(output)
    with DatasetLock(output, steal=steal_lock) as directory:
        manifests = remove_remains(directory)
        counting = live(manifests)
        if len(counting) < 2 and not _is_mixed(counting):
            return Compaction(len(counting), 0, 0)
        try:
            manifest = rewrite(directory, _plan(directory, manifests))
        except (OSError, PipelineError):
            directory.check()  # whoever took the data set over may have removed what this reads
            raise
        remove_waves(directory, manifests)
        rows = sum(wave.embedded for wave in counting)
        return Compaction(len(counting), manifest.embedded, rows - manifest.embedded)


def _is_mixed(manifests: Sequence[Manifest]) -> bool:
    """Returns whether a folder holds rows in several formats, as in data sets of older versions."""
    formats = {(entry.path.partition("/")[0], entry.format) for manifest in manifests for entry in manifest.outputs}
    return len(formats) > len({folder for folder, _ in formats})


def _plan(directory: LockedDirectory, manifests: Sequence[Manifest]) -> CompactedWave:
    """Stages the inputs of the new wave, and returns what is known of the wave before its rows are read."""
    counting = live(manifests)
    entries = [entry for manifest in counting for entry in manifest.outputs if entry.kind == "embeddings"]
    found = {entry.format for entry in entries}
    formats = tuple(name for name in SINKS.names if name in found) or SINKS.names[:1]
    name = next_wave(manifests)
    header = WaveHeader(
        name=name,
        started=datetime.datetime.now(datetime.UTC),
        versions=counting[-1].versions,
        inputs=_stage_inputs(directory, name, counting),
        key_feature=next((manifest.key_feature for manifest in counting if manifest.key_feature), None),
        image_feature=counting[-1].image_feature,
        input_keys=tuple(sorted({keys for manifest in counting for keys in manifest.input_keys})),
        replaces=tuple(manifest.wave for manifest in manifests),
        row_time=max(manifest.time for manifest in counting).isoformat(),
        main_format=main_format_of(manifests, formats),
    )
    return CompactedWave(
        header,
        formats=formats,
        compression="gzip" if any(entry.path.endswith(".gz") for entry in entries) else "none",
    )


def _stage_inputs(directory: LockedDirectory, name: str, manifests: Sequence[Manifest]) -> WrittenFile | None:
    """Writes the inputs of some waves to a staged table: the newest entry of each path is the source of its rows."""
    scratch = Scratch()
    covered = copy_inputs(directory.path, manifests, scratch, "covered.parquet")
    newest = scratch.path("newest.parquet")
    columns = ", ".join(f"arg_max({column}, wave) AS {column}" for column in INPUTS_SCHEMA.names[1:])
    with scratch.database() as database:
        database.execute(
            f"COPY (SELECT path, {columns} FROM read_parquet('{covered}') GROUP BY path ORDER BY path) TO '{newest}'"
        )
    return stage_table(directory, name, "inputs", read_batches(newest))
