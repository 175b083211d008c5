"""Rewrites a data set without superseded rows."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.errors import OutputError
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch
from pipeline.core.settings import Compression
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import (
    InputEntry,
    Manifest,
    live,
    next_wave,
    read_manifests,
    read_spec,
)
from pipeline.dataset.ownership import remove_uncommitted, remove_waves
from pipeline.dataset.reader import live_waves
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.sinks.registry import SINKS
from pipeline.dataset.writer import BundleWriter
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock, LockToken


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


def compact(output: str) -> Compaction:
    """Rewrites the current rows and failures of the data set in directory `output` as one new wave.

    The manifest of the new wave atomically replaces the old manifests; then the old files are removed. An interruption
    leaves the old or the new state, and stray files; another compaction, or `python -m pipeline.verify
    --delete_strays`, removes the strays.

    Raises:
      OutputError: there is no data set, it is damaged, or another run is writing to it.
      OSError: a file cannot be read or written.
    """
    output = filesystem.normalize(output)
    if read_spec(output) is None:
        raise OutputError(f"{output} holds no data set: it has no spec.json; name the --output of a run")
    with DatasetLock(output) as lock:
        manifests = read_manifests(output)
        counting = live(manifests)
        remove_uncommitted(output)
        done = _rewrite(output, manifests, lock.token) if len(counting) > 1 else Compaction(len(counting), 0, 0)
        _remove_replaced(output)
        return done


def _remove_replaced(output: str) -> None:
    """Removes the replaced manifests, then their files."""
    manifests = read_manifests(output)
    counting = live(manifests)
    remove_waves(output, [manifest for manifest in manifests if manifest not in counting])


def _rewrite(output: str, manifests: Sequence[Manifest], lock: LockToken) -> Compaction:
    spec = read_spec(output)
    counting = live(manifests)
    entries = [entry for manifest in counting for entry in manifest.outputs if entry.kind == "embeddings"]
    formats = {entry.format for entry in entries}
    sinks = make_sinks([name for name in SINKS.names if name in formats] or SINKS.names[:1])
    compression: Compression = "gzip" if any(entry.path.endswith(".gz") for entry in entries) else "none"
    started = datetime.datetime.now(datetime.UTC)
    name = next_wave(manifests)
    rows = superseded = 0
    with BundleWriter(output, name, sinks, SinkSettings(compression, started, to_json(spec))) as writer:
        for wave in live_waves(output):
            for batch in wave.rows():
                kept = wave.current(batch)
                rows += kept.num_rows
                superseded += batch.num_rows - kept.num_rows
                if kept.num_rows:
                    writer.add(EmbeddingBatch((kept,), (), ()))
            writer.add(EmbeddingBatch((), tuple(wave.current_failures()), ()))
        staged = writer.close()
    inputs: dict[str, InputEntry] = {}
    for manifest in counting:
        for entry in manifest.inputs:
            inputs.pop(entry.path, None)  # the newest entry of a path is the source of its current rows
            inputs[entry.path] = dataclasses.replace(entry, keys=manifest.keys_of(entry))
    header = WaveHeader(
        name=name,
        started=started,
        versions=counting[-1].versions,
        inputs=tuple(inputs.values()),
        key_feature=next((manifest.key_feature for manifest in counting if manifest.key_feature), None),
        image_feature=counting[-1].image_feature,
        replaces=tuple(manifest.wave for manifest in manifests),
        lock=lock,
    )
    commit_wave(output, header, [staged])
    return Compaction(len(counting), rows, superseded)
