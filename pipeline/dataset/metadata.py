"""The output data set: its file names, its spec and its manifests.

```
OUT/spec.json                 origin and format of all vectors
OUT/embeddings/embeddings-<wave>-SSSSS-of-NNNNN.tfrecord
OUT/embeddings-<format>/embeddings-<wave>-SSSSS-of-NNNNN.parquet   the same rows in a second format, if there is one
OUT/schema.pbtxt              the features of the TFRecords, if there are any
OUT/failures/failures-<wave>-SSSSS-of-NNNNN.jsonl
OUT/damaged/damaged-<wave>-SSSSS-of-NNNNN.jsonl    records with a row, but a damaged image
OUT/manifests/<wave>-inputs-*.parquet    the inputs of a wave
OUT/manifests/<wave>-retried-*.parquet   the failures that a wave tried again
OUT/manifests/<wave>.json     counts and files of a wave; written last, which commits the wave
OUT/summary.json              results of the last run
OUT/report.html               the page of `python -m pipeline.report`
OUT/staging/<token>/          files of an uncommitted wave
OUT/lock.json                 holder of the lock
```

Only the manifest commits a wave: a file that no manifest names is not part of the data set.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from pipeline.core.errors import OutputError
from pipeline.core.json import OMITTED_IF_NONE, from_json
from pipeline.dataset.manifest_v1 import upgrade_manifest
from pipeline.dataset.sinks.base import ShardKind
from pipeline.dataset.sinks.registry import SINKS
from pipeline.embedding.dataset_spec import FORMAT_VERSION, Spec
from pipeline.storage import filesystem

SPEC_NAME = "spec.json"
SUMMARY_NAME = "summary.json"
REPORT_NAME = "report.html"
MANIFESTS_NAME = "manifests"

KeyKind = Literal["name", "offset", "feature"]
"""Origin of the keys of a file's records: its name; the name and an offset, a row or a sample; or a feature."""
TableKind = Literal["inputs", "retried"]
_T = TypeVar("_T")
_TABLE_PATH = re.compile(rf"{MANIFESTS_NAME}/\d{{5,}}(?:-(?:inputs|retried)-\d{{5,}}\.parquet|\.json)", re.ASCII)
SHARD_FOLDERS = (*get_args(ShardKind), *(f"embeddings-{name}" for name in SINKS.names))
"""The folders of shards. Each holds files of one format; in older data sets, `embeddings` may hold several."""
_SHARD_PATH = re.compile(r"(?:embeddings(?:-\w+)?|failures|damaged)/\w[\w.-]*", re.ASCII)
_MANIFEST_PATH = re.compile(rf"(?:^|[/\\]){MANIFESTS_NAME}[/\\](\d{{5,}})\.json$", re.ASCII)


@dataclass(frozen=True)
class OutputEntry:
    """A file that a wave wrote.

    Attributes:
      path: relative to the data set, with `/`.
      kind: `embeddings`, `failures` or `damaged`.
      format: name of the sink, or `jsonl` for failures and damaged images.
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
class TableEntry:
    """A table beside a manifest.

    Attributes:
      path: relative to the data set, with `/`. In format version 1, the manifest itself holds the table.
      size_bytes: its size.
      crc32c: CRC-32C of its bytes, as 8 hexadecimal digits.
      rows: number of its rows.
    """

    path: str
    size_bytes: int
    crc32c: str
    rows: int

    @property
    def is_inline(self) -> bool:
        """Whether the table is in its manifest (format version 1)."""
        return self.path.endswith(".json")


@dataclass(frozen=True)
class Manifest:
    """The inputs and outputs of one wave.

    Attributes:
      wave: name of the wave; later waves have greater names.
      inputs: the tables of the files that the wave covers; see `pipeline.dataset.tables`.
      outputs: the files that the wave wrote.
      embedded: number of rows.
      failed: number of failures.
      failures_by_reason: number of failures by reason.
      started: start time of the wave, UTC, ISO 8601.
      seconds: duration of the wave.
      versions: versions of the packages in use.
      key_feature: the feature, column or member that holds the keys; None if the keys are made of the inputs' names.
      image_feature: what holds the images of records: a feature, a column or a member. `image/encoded` by default.
      input_keys: the origins of these files' keys, each once.
      retried: the tables of the sources of earlier waves' failures that this wave retried; these failures no longer
        count.
      replaces: names of older waves whose rows this wave contains; these waves no longer count.
      zero_vectors: number of rows whose vector is all zeros.
      duplicate_vectors: number of rows whose vector is identical, to the bit, to that of a recent row of the same
        bundle.
      damaged_but_embedded: number of rows whose image is damaged; the `damaged` files list them.
      columns: the schema of its copied columns in a table, as `pipeline.dataset.columns.to_text` returns it; None in
        waves of earlier versions.
      row_time: time of the rows in files that hold no time for each row, ISO 8601, if the wave contains rows of older
        waves; then its other files hold the times at which those were committed.
    """

    wave: str
    inputs: tuple[TableEntry, ...]
    outputs: tuple[OutputEntry, ...]
    embedded: int
    failed: int
    failures_by_reason: Mapping[str, int]
    started: str
    seconds: float
    versions: Mapping[str, str]
    key_feature: str | None = None
    image_feature: str = "image/encoded"
    input_keys: tuple[KeyKind, ...] = ()
    retried: tuple[TableEntry, ...] = ()
    replaces: tuple[str, ...] = ()
    zero_vectors: int = 0
    duplicate_vectors: int = 0
    damaged_but_embedded: int = 0
    columns: str | None = field(default=None, metadata=OMITTED_IF_NONE)
    row_time: str | None = field(default=None, metadata=OMITTED_IF_NONE)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuses names that this program never writes: the removal of a wave must not delete arbitrary files."""
        if not re.fullmatch(r"\d{5,}", self.wave, re.ASCII):
            raise ValueError(f"the wave is called {self.wave!r}")
        for entry in self.outputs:
            if not _SHARD_PATH.fullmatch(entry.path):
                raise ValueError(f"an output is called {entry.path!r}")
        for table in (*self.inputs, *self.retried):
            if not _TABLE_PATH.fullmatch(table.path):
                raise ValueError(f"a table is called {table.path!r}")

    @property
    def is_marker(self) -> bool:
        """Whether the wave holds nothing and only replaces others."""
        return bool(self.replaces) and not (self.inputs or self.outputs or self.retried)

    @property
    def is_of_another_pipeline(self) -> bool:
        """Whether a custom pipeline wrote the wave; its manifest then does not list the inputs."""
        return not (self.inputs or self.retried) and bool(self.embedded or self.failed)

    @property
    def has_keys_from_names(self) -> bool:
        """Whether the names of the wave's inputs determine the keys of its rows."""
        if self.is_of_another_pipeline:
            return False
        return self.key_feature is None or self.input_keys == ("name",)

    @property
    def committed(self) -> datetime.datetime:
        """The time right before the manifest was published, which committed the wave, UTC."""
        return datetime.datetime.fromisoformat(self.started) + datetime.timedelta(seconds=self.seconds)

    @property
    def time(self) -> datetime.datetime:
        """The time of the wave's rows, UTC, where they have no time of their own."""
        return self.committed if self.row_time is None else datetime.datetime.fromisoformat(self.row_time)

    def files(self, kind: ShardKind, preferred: Sequence[str] = SINKS.names) -> tuple[OutputEntry, ...]:
        """Returns the files of a kind in one format; together they hold each record once.

        Args:
          kind: of the files.
          preferred: names of formats, the best one first; others come last.
        """
        entries = [entry for entry in self.outputs if entry.kind == kind]
        formats = {entry.format for entry in entries}
        chosen = next((name for name in (*preferred, *sorted(formats)) if name in formats), None)
        return tuple(entry for entry in entries if entry.format == chosen)


def table_path(kind: TableKind, wave: str, index: int = 0) -> str:
    """Returns the name of a manifest's table, relative to the data set."""
    return f"{MANIFESTS_NAME}/{wave}-{kind}-{index:05d}.parquet"


def shard_folder(kind: ShardKind, shard_format: str, main_format: str) -> str:
    """Returns the folder of a shard. Rows in another format than the main one have a folder for their format."""
    return kind if kind != "embeddings" or shard_format == main_format else f"{kind}-{shard_format}"


def main_format_of(manifests: Iterable[Manifest], formats: Sequence[str]) -> str:
    """Returns the main format of a data set, whose rows are in `embeddings/`: it never changes while there are some.

    Args:
      manifests: of the data set.
      formats: of the next wave; the first one becomes the main format if there are no rows yet.
    """
    found = {
        entry.format for manifest in manifests for entry in manifest.outputs if entry.path.startswith("embeddings/")
    }
    return next((name for name in (*SINKS.names, *sorted(found)) if name in found), formats[0])


def shard_path(folder: str, kind: ShardKind, wave: str, index: int, count: int, extension: str) -> str:
    """Returns the name of a shard, relative to the data set."""
    return f"{folder}/{kind}-{wave}-{index:05d}-of-{count:05d}{extension}"


def _from_json(kind: type[_T], path: str) -> _T:
    """Reads a record of this module.

    Raises:
      OutputError: the file is not valid, or has a later format version.
    """
    data = filesystem.read_bytes(path)
    try:
        loaded = json.loads(data)
        version = loaded.get("format_version", 1)
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise OutputError(
                f"{path} has format version {version}; this program reads up to {FORMAT_VERSION}; update it"
            )
        if kind is Manifest and version == 1:
            data = json.dumps(upgrade_manifest(loaded)).encode()
        return from_json(kind, data)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
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


def require_spec(output: str) -> Spec:
    """Returns the spec of the data set in directory `output`.

    Raises:
      OutputError: there is no data set, or its spec cannot be read.
    """
    spec = read_spec(output)
    if spec is None:
        raise OutputError(f"{output} holds no data set: it has no {SPEC_NAME}; name the --output of a run")
    return spec


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
    """Returns the live manifests: those that no other manifest replaces, and that hold something."""
    manifests = tuple(manifests)
    replaced = {wave for manifest in manifests for wave in manifest.replaces}
    return tuple(manifest for manifest in manifests if manifest.wave not in replaced and not manifest.is_marker)


def next_wave(manifests: Iterable[Manifest]) -> str:
    """Returns the name of the wave after the given ones."""
    return wave_after(manifest.wave for manifest in manifests)


def wave_after(waves: Iterable[str]) -> str:
    """Returns the name of the wave after those of the given names."""
    return f"{max(map(int, waves), default=-1) + 1:05d}"


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
