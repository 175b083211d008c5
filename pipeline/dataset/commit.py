"""Committing a wave: staged files get their names in the data set, and a manifest makes them count."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.errors import OutputError
from pipeline.dataset.metadata import (
    InputEntry,
    Manifest,
    OutputEntry,
    commit,
    manifest_path,
    read_manifest,
    shard_path,
)
from pipeline.dataset.ownership import remove_staged
from pipeline.dataset.plan import covered_inputs, read_plan
from pipeline.dataset.sinks.base import Sink, find_sink
from pipeline.dataset.sinks.files import publish_file
from pipeline.dataset.writer import BundleCounts, StagedBundle
from pipeline.storage import filesystem
from pipeline.storage.lock import LockToken, still_locked


@dataclass(frozen=True)
class WaveHeader:
    """What is known of a wave before it runs.

    Attributes:
      name: of the wave.
      plan_files: what it reads, as `pipeline.dataset.plan.write_plan` wrote it.
      inputs: the files that it covers besides those of its plan.
      started: when it began, UTC.
      versions: of the packages that take part.
      key_feature: the feature that the keys come from, if any.
      image_feature: the feature that the images of TFRecords come from.
      retried: sources of earlier waves' failures that it tries again.
      replaces: names of the waves whose rows it holds as well.
      lock: what shows that nobody else writes to the data set; None to do without.
    """

    name: str
    started: datetime.datetime
    versions: Mapping[str, str]
    plan_files: tuple[str, ...] = ()
    inputs: tuple[InputEntry, ...] = ()
    key_feature: str | None = None
    image_feature: str = "image/encoded"
    retried: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    lock: LockToken | None = None


def commit_wave(
    output: str, header: WaveHeader, staged: Iterable[StagedBundle], sinks: Sequence[Sink] = ()
) -> Manifest:
    """Gives staged files their names in the data set and writes the manifest that makes them count.

    Doing it again after an interruption, with the same files, comes to the same end.

    Args:
      output: directory of the data set.
      header: what is known of the wave.
      staged: what its bundles wrote.
      sinks: those that are not registered.

    Raises:
      OSError: a file cannot be moved or the manifest cannot be written; the wave is then not committed.
      OutputError: another run has taken over the data set, or has committed a wave of this name; the wave
        is then not committed.
    """
    with still_locked(output, header.lock):
        if filesystem.exists(manifest_path(output, header.name)):
            committed = read_manifest(output, header.name)
            if committed.started != header.started.isoformat():
                raise OutputError(
                    f"{output} has a wave {header.name} already, from {committed.started}; give the new one another "
                    "name"
                )
            return committed
        manifest = _name_files(output, header, staged, sinks)
    # Once more: in an object store the lock may have been taken meanwhile.
    with still_locked(output, header.lock):
        commit(output, manifest)
    with contextlib.suppress(OSError):  # the wave counts; the next one to write cleans up
        remove_staged(output)
    return manifest


def _name_files(output: str, header: WaveHeader, staged: Iterable[StagedBundle], sinks: Sequence[Sink]) -> Manifest:
    """Moves staged files to their names in the data set, and returns the manifest that is to make them count."""
    bundles = list(staged)
    counts = sum((bundle.counts for bundle in bundles), BundleCounts())
    outputs: list[OutputEntry] = []
    shards = [shard for bundle in bundles for shard in bundle.shards]
    ordered = sorted(shards, key=lambda shard: (shard.kind, shard.extension, shard.first_key, shard.path))
    total = Counter((shard.kind, shard.extension) for shard in ordered)
    index: Counter[tuple[str, str]] = Counter()
    for shard in ordered:
        group = (shard.kind, shard.extension)
        name = shard_path(shard.kind, header.name, index[group], total[group], shard.extension)
        index[group] += 1
        target = filesystem.join(output, name)
        publish = publish_file if shard.kind == "failures" else find_sink(shard.format, sinks).publish
        publish(shard.path, target)
        crc32c = f"{shard.crc32c:08x}"
        outputs.append(OutputEntry(name, shard.kind, shard.format, shard.size_bytes, crc32c, shard.rows))
    tasks = (task for path in header.plan_files for task in read_plan(path))
    planned = covered_inputs(tasks, header.key_feature)
    return Manifest(
        wave=header.name,
        inputs=tuple(_with_records(entry, counts.inputs) for entry in (*planned, *header.inputs)),
        outputs=tuple(outputs),
        embedded=counts.embedded,
        failed=sum(counts.reasons.values()),
        failures_by_reason=dict(sorted(counts.reasons.items())),
        started=header.started.isoformat(),
        seconds=round((datetime.datetime.now(datetime.UTC) - header.started).total_seconds(), 3),
        versions=header.versions,
        key_feature=header.key_feature,
        image_feature=header.image_feature,
        retried=header.retried,
        replaces=header.replaces,
        zero_vectors=counts.zero_vectors,
        duplicate_vectors=counts.duplicate_vectors,
    )


def _with_records(entry: InputEntry, records: Mapping[str, int]) -> InputEntry:
    """Returns an input with the number of its records, as many as were met where it is not known."""
    return entry if entry.records else dataclasses.replace(entry, records=records.get(entry.path, 0))
