"""Committing a wave: moves staged files into the data set and writes the manifest."""

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
    """The properties of a wave that are known before it runs.

    Attributes:
      name: name of the wave.
      plan_files: the plan files that `pipeline.dataset.plan.write_plan` wrote.
      inputs: input files that the wave covers besides those of its plan.
      started: start time of the wave, UTC.
      versions: versions of the packages in use.
      key_feature: the feature that holds the keys, if any.
      image_feature: the feature that holds the images of TFRecords.
      retried: sources of earlier waves' failures that the wave retries.
      replaces: names of older waves whose rows this wave contains.
      lock: token of the data set's lock; None for no check of the lock.
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
    """Moves staged files to their names in the data set, then writes the manifest.

    The function is idempotent: a second call with the same files completes an interrupted commit.

    Args:
      output: directory of the data set.
      header: the properties of the wave.
      staged: the bundles of the wave.
      sinks: sinks that are not registered.

    Raises:
      OSError: a file cannot be moved or the manifest cannot be written; the wave is then not committed.
      OutputError: another run has taken over the data set, or has committed a wave of this name; the wave is then not
        committed.
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
    # A second check: in an object store, another run may have taken the lock meanwhile.
    with still_locked(output, header.lock):
        commit(output, manifest)
    with contextlib.suppress(OSError):  # the wave is committed; the next writer cleans up
        remove_staged(output)
    return manifest


def _name_files(output: str, header: WaveHeader, staged: Iterable[StagedBundle], sinks: Sequence[Sink]) -> Manifest:
    """Moves staged files to their names in the data set; returns the manifest to write."""
    bundles = list(staged)
    counts = BundleCounts.total(bundle.counts for bundle in bundles)
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
    """Returns an input with its number of records; if unknown, the number of records read."""
    return entry if entry.records else dataclasses.replace(entry, records=records.get(entry.path, 0))
