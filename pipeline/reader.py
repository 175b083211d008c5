"""Reading a data set: its rows and failures, each once, whatever the number of waves that wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage, tfrecord
from pipeline.dataset import SPEC_NAME, Manifest, OutputEntry, live, read_manifests, read_spec
from pipeline.errors import OutputError
from pipeline.examples import decode_rows
from pipeline.gzip_stream import ByteStream, GzipStream
from pipeline.records import Failure
from pipeline.settings import TIMESTAMP_COLUMN

_ROWS_PER_BATCH = 1024


@dataclass
class Superseded:
    """What newer waves hold, so that what an older one holds of it no longer counts.

    Keys that are made of the inputs' names are compared by those names, which takes little memory;
    keys that come from a feature, or from somebody's own pipeline, are kept, each of them.
    """

    _names: set[bytes] = field(default_factory=set)
    _keys: set[bytes] = field(default_factory=set)
    _retried: set[bytes] = field(default_factory=set)
    _paths: set[str] = field(default_factory=set)

    def add(self, manifest: Manifest) -> None:
        """Takes the inputs and retried failures of a wave."""
        if manifest.key_feature is None:
            self._names.update(name for entry in manifest.inputs for name in _as_keys(entry.name))
        else:
            self._paths.update(entry.path for entry in manifest.inputs)
        self._retried.update(map(_to_bytes, manifest.retried))

    def add_keys(self, keys: Iterator[bytes]) -> None:
        """Takes the keys of a wave's rows and failures."""
        self._keys.update(keys)

    def holds(self, key: bytes) -> bool:
        """Says whether a newer wave has read the input of a key again, or has the key itself."""
        return key in self._keys or (
            bool(self._names) and (key in self._names or key.rpartition(b"@")[0] in self._names)
        )

    def holds_failure(self, failure: Failure) -> bool:
        """Says whether a newer wave has read the input of a failure again, or has tried just its record."""
        source = failure.source
        return (
            failure.key in self._retried
            or (bool(self._paths) and (source in self._paths or source.rpartition("@")[0] in self._paths))
            or self.holds(failure.key)
        )

    def __bool__(self) -> bool:
        return bool(self._names or self._keys)


def _to_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _as_keys(name: str) -> set[bytes]:
    """Returns the keys that a name makes: its bytes, and what Parquet holds where they are not UTF-8."""
    key = _to_bytes(name)
    return {key, key.decode("utf-8", "backslashreplace").encode()}


def read_embeddings(output: str) -> Iterator[pa.RecordBatch]:
    """Yields the committed rows of the data set in directory `output`; for a repeated key, the newest wave's.

    Columns: `key` (binary), `embedding` (fixed_size_list<float32>[D]) and the features that were
    passed through (lists of binary, float32 or int64). Rows of one wave that share a key are all kept.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = storage.normalize(output)
    for wave in live_waves(output):
        for rows in wave.rows():
            keep = [not wave.newer.holds(key) for key in rows.column("key").to_pylist()] if wave.newer else []
            yield rows if all(keep) else rows.filter(pa.array(keep))


def read_failures(output: str) -> Iterator[Failure]:
    """Yields the committed failures of the data set in directory `output` that no newer wave has made good.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    output = storage.normalize(output)
    for wave in live_waves(output):
        for failure in wave.failures():
            if not wave.newer.holds_failure(failure):
                yield failure


@dataclass(frozen=True)
class LiveWave:
    """One wave of a data set, and what the newer ones hold."""

    output: str
    manifest: Manifest
    newer: Superseded

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows that the wave wrote."""
        for entry in self.manifest.files("embeddings"):
            yield from read_shard(storage.join(self.output, entry.path), entry)

    def failures(self) -> Iterator[Failure]:
        """Yields all failures that the wave wrote."""
        for entry in self.manifest.files("failures"):
            yield from read_failures_file(storage.join(self.output, entry.path))


def live_waves(output: str) -> Iterator[LiveWave]:
    """Yields the waves of a data set that count, the newest first.

    What is `newer` grows as the iteration goes on.

    Raises:
      OutputError: there is no data set in `output`, or it is damaged.
    """
    manifests = live(read_manifests(output))
    if not manifests and read_spec(output) is None:
        raise OutputError(f"{output} holds no data set: it has no {SPEC_NAME}; name the --output of a run")
    names_tell = all(map(_names_tell, manifests))
    newer = Superseded()
    for index, manifest in enumerate(reversed(manifests), start=1):
        wave = LiveWave(output, manifest, newer)
        yield wave
        newer.add(manifest)
        if not names_tell and index < len(manifests):
            newer.add_keys(key for rows in wave.rows() for key in rows.column("key").to_pylist())
            newer.add_keys(failure.key for failure in wave.failures())


def _names_tell(manifest: Manifest) -> bool:
    """Says whether the names of a wave's inputs tell the keys of its rows, which need not be compared then."""
    has_inputs = bool(manifest.inputs or manifest.retried or not (manifest.embedded or manifest.failed))
    return manifest.key_feature is None and has_inputs


def read_shard(path: str, entry: OutputEntry) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one embeddings file.

    Raises:
      OutputError: the file is damaged.
    """
    try:
        with storage.open_read(path) as file:
            yield from _read_parquet(file) if entry.format == "parquet" else _read_tfrecord(path, file)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error


def _read_tfrecord(path: str, file: ByteStream) -> Iterator[pa.RecordBatch]:
    waiting: list[bytes] = []
    stream = GzipStream(file) if path.endswith(".gz") else file
    for item in tfrecord.read_records_sequential(stream):
        if not isinstance(item, tfrecord.Record):
            raise ValueError(f"damaged record: {item}")
        waiting.append(item.data)
        if len(waiting) == _ROWS_PER_BATCH:
            yield from decode_rows(waiting)
            waiting = []
    yield from decode_rows(waiting)


def _read_parquet(file: object) -> Iterator[pa.RecordBatch]:
    for rows in pq.ParquetFile(file).iter_batches(_ROWS_PER_BATCH):
        columns = {name: rows.column(name) for name in rows.schema.names if name != TIMESTAMP_COLUMN}
        if not pa.types.is_fixed_size_list(columns["embedding"].type) or columns["embedding"].null_count:
            raise ValueError("a row has no embedding")
        yield pa.RecordBatch.from_pydict({**columns, "key": columns["key"].cast(pa.binary())})


def read_failures_file(path: str) -> Iterator[Failure]:
    """Yields the failures in one failures file.

    Raises:
      OutputError: the file is damaged.
    """
    try:
        for line in storage.read_bytes(path).decode("utf-8").splitlines():
            yield Failure.from_json(line)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read: {error}; run python -m pipeline.verify") from error
