"""Committing a wave: moves staged files into the data set and writes the manifest."""

from __future__ import annotations

import contextlib
import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.errors import IntegrityError, OutputError
from pipeline.dataset.columns import merged, to_text
from pipeline.dataset.metadata import (
    KeyKind,
    Manifest,
    OutputEntry,
    TableEntry,
    TableKind,
    main_format_of,
    manifest_path,
    read_manifest,
    read_manifests,
    read_spec,
    shard_folder,
    shard_path,
    table_path,
)
from pipeline.dataset.ownership import write_manifest
from pipeline.dataset.plan_files import read_covered
from pipeline.dataset.sinks.base import SCHEMA_NAME, ShardKind, Sink, StagedShard, find_sink
from pipeline.dataset.sinks.registry import SINKS
from pipeline.dataset.tables import stage_table
from pipeline.dataset.writer import BundleCounts, StagedBundle
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.object_store import Move
from pipeline.storage.staged_file import WrittenFile


@dataclass(frozen=True)
class WaveHeader:
    """The properties of a wave that are known before it runs.

    Attributes:
      name: name of the wave.
      started: start time of the wave, UTC.
      versions: versions of the packages in use.
      plan_files: the plan files that `pipeline.dataset.plan_files.write_plan` wrote.
      inputs: a staged table of input files that the wave covers besides those of its plan.
      retried: a staged table of the sources of earlier waves' failures that the wave retries.
      key_feature: the feature, column or member that holds the keys, if any.
      image_feature: what holds the images of records: a feature, a column or a member. `image/encoded` by default.
      input_keys: the origins of the keys of `inputs`.
      replaces: names of older waves whose rows this wave contains.
      row_time: see `Manifest`.
      main_format: format of the rows in `embeddings/`, see `main_format_of`; None: found from all manifests.
    """

    name: str
    started: datetime.datetime
    versions: Mapping[str, str]
    plan_files: tuple[str, ...] = ()
    inputs: WrittenFile | None = None
    retried: WrittenFile | None = None
    key_feature: str | None = None
    image_feature: str = "image/encoded"
    input_keys: tuple[KeyKind, ...] = ()
    replaces: tuple[str, ...] = ()
    row_time: str | None = None
    main_format: str | None = None


def commit_wave(
    directory: LockedDirectory,
    header: WaveHeader,
    staged: Iterable[StagedBundle],
    sinks: Sequence[Sink] = (),
    *,
    records_read: int | None = None,
) -> Manifest:
    """Moves staged files to their names in the data set, then writes the manifest.

    The function is idempotent: a second call with the same files completes an interrupted commit.

    Args:
      directory: the data set.
      header: the properties of the wave.
      staged: the bundles of the wave.
      sinks: sinks that are not registered.
      records_read: number of records that the wave has read; None if it was not counted.

    Raises:
      IntegrityError: records were lost or counted twice; the wave is then not committed.
      OSError: a file cannot be moved or the manifest cannot be written; the wave is then not committed.
      OutputError: another run has taken over the data set, or has committed a wave of this name; the wave is then not
        committed.
    """
    output = directory.path
    committed = read_manifest(output, header.name) if filesystem.exists(manifest_path(output, header.name)) else None
    if committed is None or not directory.is_handed_over:  # a job that has committed has released the lock
        directory.check()
    if committed is not None:
        if committed.started != header.started.isoformat():
            raise OutputError(
                f"{output} has a wave {header.name} already, from {committed.started}; give the new one another name"
            )
        return committed
    manifest = _publish(directory, header, tuple(staged), sinks, records_read)
    write_manifest(directory, manifest)
    with contextlib.suppress(OSError):  # the wave is committed; the end of the run cleans up
        directory.remove_staged(header.name)
    return manifest


def _publish(
    directory: LockedDirectory,
    header: WaveHeader,
    bundles: Sequence[StagedBundle],
    sinks: Sequence[Sink],
    records_read: int | None,
) -> Manifest:
    """Moves all staged files of a wave to their names in the data set; returns the manifest to write."""
    counts = BundleCounts.total(bundle.counts for bundle in bundles)
    failed = sum(counts.reasons.values())
    if records_read is not None and records_read != counts.embedded + failed:
        raise IntegrityError(
            f"wave {header.name}: {records_read} records were read, but {counts.embedded} embedded and {failed} "
            "failed; expected the same number; please report this"
        )
    columns = merged(pa.ipc.read_schema(pa.py_buffer(text)) for text in dict.fromkeys(item.columns for item in bundles))
    keys: set[KeyKind] = set(header.input_keys)
    covered = read_covered(header.plan_files, header.key_feature, counts.inputs)
    inputs = [stage_table(directory, header.name, "inputs", _noting_keys(covered, keys)), header.inputs]
    _describe(directory, header, bundles, columns, sinks)
    return Manifest(
        wave=header.name,
        inputs=_publish_tables(directory, header.name, "inputs", inputs),
        outputs=_publish_shards(directory, header, bundles, sinks),
        embedded=counts.embedded,
        failed=failed,
        failures_by_reason=dict(sorted(counts.reasons.items())),
        started=header.started.isoformat(),
        seconds=round((datetime.datetime.now(datetime.UTC) - header.started).total_seconds(), 6),
        versions=header.versions,
        key_feature=header.key_feature,
        image_feature=header.image_feature,
        input_keys=tuple(sorted(keys)),
        retried=_publish_tables(directory, header.name, "retried", [header.retried]),
        replaces=header.replaces,
        zero_vectors=counts.zero_vectors,
        duplicate_vectors=counts.duplicate_vectors,
        damaged_but_embedded=counts.damaged,
        columns=to_text(columns),
        row_time=header.row_time,
    )


def _noting_keys(batches: Iterable[pa.RecordBatch], keys: set[KeyKind]) -> Iterator[pa.RecordBatch]:
    for rows in batches:
        keys.update(pc.unique(rows.column("keys")).to_pylist())
        yield rows


def _publish_tables(
    directory: LockedDirectory, wave: str, kind: TableKind, tables: Iterable[WrittenFile | None]
) -> tuple[TableEntry, ...]:
    written = [table for table in tables if table is not None]
    names = [table_path(kind, wave, index) for index in range(len(written))]
    directory.publish(
        Move(table.path, filesystem.join(directory.path, name)) for table, name in zip(written, names, strict=True)
    )
    return tuple(
        TableEntry(name, table.size_bytes, f"{table.crc32c:08x}", table.rows)
        for table, name in zip(written, names, strict=True)
    )


def _describe(
    directory: LockedDirectory,
    header: WaveHeader,
    bundles: Sequence[StagedBundle],
    columns: pa.Schema,
    sinks: Sequence[Sink],
) -> None:
    """Adds the columns of a wave to `schema.pbtxt`, before its rows are committed."""
    spec = read_spec(directory.path)
    formats = {shard.format for bundle in bundles for shard in bundle.shards if shard.kind == "embeddings"}
    if spec is None or not formats:
        return
    path = filesystem.join(directory.path, SCHEMA_NAME)
    found = filesystem.read_bytes(path) if filesystem.exists(path) else b""
    for name in sorted(formats):
        try:
            text = find_sink(name, sinks).describe(columns, spec.dimension, b"" if header.replaces else found)
        except ValueError as error:
            raise OutputError(f"{path} is damaged: {error}; remove it, and run python -m pipeline.compact") from error
        if text and text != found:
            directory.replace(SCHEMA_NAME, text)


def _main_format(output: str, header: WaveHeader, shards: Sequence[StagedShard]) -> str:
    if header.main_format is not None:
        return header.main_format
    found = {shard.format for shard in shards if shard.kind == "embeddings"}
    formats = [name for name in (*SINKS.names, *sorted(found)) if name in found]
    return main_format_of(read_manifests(output), formats) if formats else SINKS.names[0]


def _unified(
    directory: LockedDirectory, wave: str, shards: Sequence[StagedShard], sinks: Sequence[Sink]
) -> list[StagedShard]:
    """Returns the shards, in the same order, as their sinks want them beside each other."""
    unified = list(shards)
    for shard_format in sorted({shard.format for shard in shards if shard.kind == "embeddings"}):
        indices = [index for index, shard in enumerate(shards) if shard.format == shard_format]
        found = find_sink(shard_format, sinks).unify(directory, wave, [shards[index] for index in indices])
        for index, shard in zip(indices, found, strict=True):
            unified[index] = shard
    return unified


def _publish_shards(
    directory: LockedDirectory, header: WaveHeader, bundles: Iterable[StagedBundle], sinks: Sequence[Sink]
) -> tuple[OutputEntry, ...]:
    wave = header.name
    shards = [shard for bundle in bundles for shard in bundle.shards]
    ordered = sorted(shards, key=lambda shard: (shard.kind, shard.extension, shard.first_key, shard.path))
    total = Counter((shard.kind, shard.extension) for shard in ordered)
    index: Counter[tuple[str, str]] = Counter()
    outputs: list[OutputEntry] = []
    moves: dict[tuple[ShardKind, str], list[Move]] = {}
    main = _main_format(directory.path, header, ordered)
    for shard in _unified(directory, wave, ordered, sinks):
        group = (shard.kind, shard.extension)
        folder = shard_folder(shard.kind, shard.format, main)
        name = shard_path(folder, shard.kind, wave, index[group], total[group], shard.extension)
        index[group] += 1
        moves.setdefault((shard.kind, shard.format), []).append(Move(shard.path, filesystem.join(directory.path, name)))
        crc32c = f"{shard.crc32c:08x}"
        outputs.append(OutputEntry(name, shard.kind, shard.format, shard.size_bytes, crc32c, shard.rows))
    for (kind, shard_format), shard_moves in moves.items():
        if kind == "embeddings":
            directory.publish(shard_moves, find_sink(shard_format, sinks).publish)
        else:
            directory.publish(shard_moves)
    return tuple(outputs)
