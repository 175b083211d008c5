"""Small data sets, made and read back, for the tests of what becomes of them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import TooManyFailures
from pipeline.core.failures import Failure
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch, Feature, ImageRecord
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.reader import read_embeddings
from pipeline.dataset.sinks.base import SinkSettings, StagedShard, make_sinks
from pipeline.dataset.tables import InputEntry, inputs_of, retried_of, stage_table
from pipeline.dataset.verify import verify
from pipeline.dataset.writer import BundleWriter, StagedBundle
from pipeline.embedding.dataset_spec import Preprocessing, Spec
from pipeline.job.summary import Summary
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.testing import jpeg_bytes
from pipeline.tfrecords.examples import embedding_rows

TOKEN = "0123456789abcdef" * 2
STARTED = datetime.datetime(2024, 5, 17, 8, 30, 15, 250000, tzinfo=datetime.UTC)
SPEC = Spec(
    module="some/module",
    module_sha256="0123456789abcdef" * 4,
    signature="default",
    output_key="default",
    dimension=3,
    preprocessing=Preprocessing(height=32, width=48, decode="exact", exif_orientation=False),
    normalization="none",
    engine="tensorflow",
    precision="float32",
    parity=None,
)


def make_photos(directory: Path, count: int, *, first: int = 0) -> list[Path]:
    """Writes small images that all differ, `000.jpg`, `001.jpg` and so on."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{index:03d}.jpg" for index in range(first, first + count)]
    for index, path in enumerate(paths, first):
        path.write_bytes(jpeg_bytes(seed=index))
    return paths


def embed(source: object, output: object, module: object, **flags: object) -> Summary:
    """Runs the job and checks that its own count and that of the manifests hold every record.

    However many of them fail, unless a `max_failure_rate` is given.
    """
    lenient = "max_failure_rate" not in flags
    flags = {"engine": "tensorflow", **flags}
    before = (
        {manifest.wave for manifest in metadata.read_manifests(str(output))} if not flags.get("overwrite") else set()
    )
    inputs = [str(item) for item in source] if isinstance(source, list) else str(source)
    config = RunConfig.from_flags(input=inputs, output=str(output), module=str(module), **flags)
    try:
        summary = pipeline.run(config)
    except TooManyFailures:
        if not lenient:
            raise
        summary = Summary(**json.loads(filesystem.read_bytes(filesystem.join(str(output), "summary.json"))))
    assert summary.records == summary.embedded + summary.failed
    assert summary.failed == sum(summary.failures_by_reason.values())
    new = [manifest for manifest in metadata.read_manifests(str(output)) if manifest.wave not in before]
    assert summary.embedded == sum(manifest.embedded for manifest in new)
    assert summary.failed == sum(manifest.failed for manifest in new)
    return summary


def read_rows(output: object) -> dict[bytes, dict[str, object]]:
    """Returns the rows of a data set by key; no key may come twice."""
    found = [row for batch in read_embeddings(str(output)) for row in batch.to_pylist()]
    rows = {row["key"]: row for row in found}
    assert len(rows) == len(found)
    return rows


def read_vectors(output: object) -> dict[bytes, bytes]:
    """Returns the vectors of a data set by key, to the bit."""
    return {key: np.array(row["embedding"], np.float32).tobytes() for key, row in sorted(read_rows(output).items())}


def contents(directory: Path) -> dict[str, bytes]:
    """Returns the files below a directory."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def make_batch(
    rows: dict[str | bytes, Sequence[float]],
    failures: Sequence[Failure] = (),
    *,
    features: dict[str, Feature] | None = None,
    source: str = "/in/{}",
) -> EmbeddingBatch:
    """Returns a batch of rows, by key, and failures."""
    keys = [key if isinstance(key, bytes) else os.fsencode(key) for key in rows]
    sources = tuple(source.format(key.decode("utf-8", "surrogateescape")) for key in keys)
    records = [ImageRecord(key, "", b"", features or {}) for key in keys]
    vectors = np.array(list(rows.values()), np.float32)
    return EmbeddingBatch(embedding_rows(records, vectors) if rows else (), tuple(failures), sources)


def make_failure(key: str, *, reason: str = "truncated", source: str | None = None) -> Failure:
    return Failure(os.fsencode(key), source or f"/in/{key}", "decode", reason, "made up")


def unlocked(output: Path | str) -> LockedDirectory:
    """Returns the right to change a data set that only this test changes, always with the same staging directory."""
    return LockedDirectory(str(output), TOKEN, is_locked=False)


def stage(
    output: Path | LockedDirectory,
    *batches: EmbeddingBatch,
    wave: str = "00000",
    formats: tuple = ("tfrecord",),
    compression: str = "none",
) -> list[StagedBundle]:
    """Writes batches to staged shards of a wave, as one bundle."""
    directory = output if isinstance(output, LockedDirectory) else unlocked(output)
    with BundleWriter(directory, wave, make_sinks(formats), SinkSettings(compression, to_json(SPEC))) as writer:
        for batch in batches:
            writer.add(batch)
        return [writer.close()]


def stage_shards(output: Path, *batches: EmbeddingBatch, **options: object) -> list[StagedShard]:
    """Writes batches to staged shards and returns these."""
    (bundle,) = stage(output, *batches, **options)
    return list(bundle.shards)


def entry(
    name: str, *, size_bytes: int = 10, mtime_s: float = 1.5, records: int = 1, keys: str = "offset"
) -> InputEntry:
    """Returns an input of directory `/in`."""
    return InputEntry(f"/in/{name}", name, size_bytes, mtime_s, records, keys)


def make_header(
    directory: LockedDirectory,
    wave: str,
    *,
    inputs: Sequence[InputEntry] = (),
    retried: Sequence[str] = (),
    **options: object,
) -> WaveHeader:
    """Returns the header of a wave that covers inputs; stages the tables of these, and of the retried sources."""
    if options.get("key_feature"):
        inputs = [dataclasses.replace(item, keys="feature") if item.keys == "offset" else item for item in inputs]
    tables = {
        "inputs": stage_table(directory, wave, "inputs", [inputs_of(inputs)]),
        "retried": stage_table(directory, wave, "retried", [retried_of(retried)]),
    }
    keys = tuple(sorted({item.keys for item in inputs}))
    return WaveHeader(wave, STARTED, {"numpy": "2"}, **tables, input_keys=keys, **options)


def add_wave(
    output: Path | LockedDirectory, wave: str, *batches: EmbeddingBatch, **options: object
) -> metadata.Manifest:
    """Commits a wave to a data set, which it makes if need be."""
    directory = output if isinstance(output, LockedDirectory) else unlocked(output)
    staging = {name: options.pop(name) for name in ("formats", "compression") if name in options}
    if metadata.read_spec(directory.path) is None:
        write_spec(directory, SPEC)
    staged = stage(directory, *batches, wave=wave, **staging)
    return commit_wave(directory, make_header(directory, wave, **options), staged)


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Waits for a condition that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} s"
        time.sleep(0.001)  # leaves the core to those who bring it about


def keep_stat(path: Path, data: bytes) -> None:
    """Replaces what a file holds so that neither its size nor its time tells."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Returns the files below a directory, with their times of modification."""
    return {name: ((directory / name).stat().st_mtime_ns, data) for name, data in contents(directory).items()}


def complete(output: Path) -> bool:
    """Says whether a data set is undamaged and its directory holds no other file."""
    report = verify(str(output))
    return (report.problems, report.strays) == ((), ())
