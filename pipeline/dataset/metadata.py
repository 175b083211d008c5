"""The output data set: its file names, its spec and its manifests.

```
OUT/spec.json                 origin and format of all vectors
OUT/embeddings/embeddings-<wave>-SSSSS-of-NNNNN.tfrecord
OUT/failures/failures-<wave>-SSSSS-of-NNNNN.jsonl
OUT/manifests/<wave>.json     inputs and outputs of a wave; written last, which commits the wave
OUT/summary.json              results of the last run
OUT/staging/                  files of an uncommitted wave
OUT/lock.json                 holder of the lock
```

Only the manifest commits a wave: a file that no manifest names is not part of the data set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.core.errors import OutputError
from pipeline.core.json import from_json, to_json
from pipeline.dataset.sinks.base import ShardKind
from pipeline.dataset.sinks.registry import SINKS
from pipeline.embedding.dataset_spec import FORMAT_VERSION, Spec
from pipeline.storage import filesystem

SPEC_NAME = "spec.json"
SUMMARY_NAME = "summary.json"
STAGING_NAME = "staging"
MANIFESTS_NAME = "manifests"

KeyKind = Literal["name", "offset", "feature"]
_T = TypeVar("_T")
_SHARD_PATH = re.compile(r"(?:embeddings|failures)/\w[\w.-]*", re.ASCII)
_MANIFEST_PATH = re.compile(rf"(?:^|[/\\]){MANIFESTS_NAME}[/\\](\d{{5,}})\.json$", re.ASCII)


@dataclass(frozen=True)
class InputEntry:
    """An input file that a wave covers, in its state at planning time.

    Attributes:
      path: its path or URI.
      name: its name in the keys of its records, unless a feature holds the keys.
      size_bytes: its size.
      mtime_s: modification time, in seconds since 1970.
      records: number of its records, good or bad; 0 if not counted yet.
      keys: origin of its records' keys: its `name`, the name and an `offset`, or a `feature`; None if unknown.
    """

    path: str
    name: str
    size_bytes: int
    mtime_s: float
    records: int = 1
    keys: KeyKind | None = None


@dataclass(frozen=True)
class OutputEntry:
    """A file that a wave wrote.

    Attributes:
      path: relative to the data set, with `/`.
      kind: `embeddings` or `failures`.
      format: name of the sink, or `jsonl` for failures.
      size_bytes: its size.
      crc32c: CRC-32C (Castagnoli) of its bytes, as 8 hexadecimal digits.
      rows: number of records in it.
    """

    path: str
    kind: ShardKind
    format: str
    size_bytes: int
    crc32c: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The inputs and outputs of one wave.

    Attributes:
      wave: name of the wave; later waves have greater names.
      inputs: the files that the wave covers.
      outputs: the files that the wave wrote.
      embedded: number of rows.
      failed: number of failures.
      failures_by_reason: number of failures by reason.
      started: start time of the wave, UTC, ISO 8601.
      seconds: duration of the wave.
      versions: versions of the packages in use.
      key_feature: the feature that holds the keys; None if the keys are made of the inputs' names.
      image_feature: the feature that holds the images of TFRecords.
      retried: sources of earlier waves' failures that this wave retried; these failures no longer count.
      replaces: names of older waves whose rows this wave contains; these waves no longer count.
      zero_vectors: number of rows whose vector is all zeros.
      duplicate_vectors: number of rows whose vector is identical, to the bit, to that of a recent row of the same
        bundle.
    """

    wave: str
    inputs: tuple[InputEntry, ...]
    outputs: tuple[OutputEntry, ...]
    embedded: int
    failed: int
    failures_by_reason: Mapping[str, int]
    started: str
    seconds: float
    versions: Mapping[str, str]
    key_feature: str | None = None
    image_feature: str = "image/encoded"
    retried: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    zero_vectors: int = 0
    duplicate_vectors: int = 0
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuses names that this program never writes: the removal of a wave must not delete arbitrary files."""
        if not re.fullmatch(r"\d{5,}", self.wave, re.ASCII):
            raise ValueError(f"the wave is called {self.wave!r}")
        for entry in self.outputs:
            if not _SHARD_PATH.fullmatch(entry.path):
                raise ValueError(f"an output is called {entry.path!r}")

    def keys_of(self, entry: InputEntry) -> KeyKind:
        """Returns the origin of the keys of an input's records."""
        return entry.keys or ("offset" if self.key_feature is None else "feature")

    def files(self, kind: ShardKind) -> tuple[OutputEntry, ...]:
        """Returns the files of a kind in one format; together they hold each record once.

        The first registered format is preferred: TFRecord keeps keys as bytes, Parquet as text.
        """
        entries = [entry for entry in self.outputs if entry.kind == kind]
        formats = {entry.format for entry in entries}
        chosen = next((name for name in (*SINKS.names, *sorted(formats)) if name in formats), None)
        return tuple(entry for entry in entries if entry.format == chosen)


def shard_path(kind: ShardKind, wave: str, index: int, count: int, extension: str) -> str:
    """Returns the name of a shard, relative to the data set."""
    return f"{kind}/{kind}-{wave}-{index:05d}-of-{count:05d}{extension}"


def _from_json(kind: type[_T], path: str) -> _T:
    """Reads a record of this module.

    Raises:
      OutputError: the file is not valid, or has a later format version.
    """
    data = filesystem.read_bytes(path)
    try:
        version = json.loads(data).get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise OutputError(
                f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}; update it"
            )
        return from_json(kind, data)
    except (ValueError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())
        again = "remove it to embed its inputs again"
        advice = f"restore it, or {again if kind is Manifest else 'name another directory'}"
        raise OutputError(f"{path} is not a {kind.__name__.lower()} of this program: {text}; {advice}") from None


def read_spec(output: str) -> Spec | None:
    """Returns the spec of the data set in directory `output`, or None if there is none.

    Raises:
      OutputError: the spec cannot be read.
    """
    path = filesystem.join(output, SPEC_NAME)
    return _from_json(Spec, path) if filesystem.exists(path) else None


def write_spec(output: str, spec: Spec) -> None:
    """Writes the spec of the data set in directory `output`."""
    filesystem.write_atomically(filesystem.join(output, SPEC_NAME), to_json(spec))


def read_manifests(output: str) -> tuple[Manifest, ...]:
    """Returns the manifests of the data set in directory `output`, oldest wave first.

    Raises:
      OutputError: a manifest cannot be read.
    """
    stats = filesystem.list_files(filesystem.join(output, MANIFESTS_NAME))
    names = (_MANIFEST_PATH.search(stat.path) for stat in stats)
    return tuple(_read_manifest(output, wave) for wave in sorted({name[1] for name in names if name}, key=int))


def _read_manifest(output: str, wave: str) -> Manifest:
    path = manifest_path(output, wave)
    manifest = _from_json(Manifest, path)
    if manifest.wave != wave:
        raise OutputError(
            f"{path} is the manifest of wave {manifest.wave}, not of {wave}; remove what was copied there"
        )
    return manifest


def live(manifests: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Returns the live manifests: those that no other manifest replaces."""
    manifests = tuple(manifests)
    replaced = {wave for manifest in manifests for wave in manifest.replaces}
    return tuple(manifest for manifest in manifests if manifest.wave not in replaced)


def next_wave(manifests: Iterable[Manifest]) -> str:
    """Returns the name of the wave after the given ones."""
    return f"{max((int(manifest.wave) for manifest in manifests), default=-1) + 1:05d}"


def read_manifest(output: str, wave: str) -> Manifest:
    """Returns the manifest of one wave.

    Raises:
      OutputError: the manifest does not exist or cannot be read.
    """
    try:
        return _read_manifest(output, wave)
    except OSError as error:
        raise OutputError(f"wave {wave} of {output} is not committed: {error}") from error


def manifest_path(output: str, wave: str) -> str:
    """Returns the path of a wave's manifest."""
    return filesystem.join(output, MANIFESTS_NAME, f"{wave}.json")


def commit(output: str, manifest: Manifest) -> None:
    """Commits a wave: writes its manifest."""
    filesystem.write_atomically(manifest_path(output, manifest.wave), to_json(manifest))
