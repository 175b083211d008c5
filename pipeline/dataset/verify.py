"""Checks a data set against its manifests."""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.errors import OutputError, UsageError
from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import Address, ImageRecord
from pipeline.dataset.metadata import (
    MANIFESTS_NAME,
    STAGING_NAME,
    Manifest,
    OutputEntry,
    live,
    read_manifests,
    read_spec,
)
from pipeline.dataset.ownership import is_own_file, owned_files, temporary_files
from pipeline.dataset.reader import live_waves, read_failures, read_failures_file, read_shard
from pipeline.embedding.dataset_spec import Spec
from pipeline.storage import filesystem
from pipeline.storage.checksum import extend_crc32c
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.gzip_stream import GzipStream

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Report:
    """The contents of a data set, and its problems.

    Attributes:
      waves: number of live waves.
      rows: number of current rows.
      superseded: number of rows that newer waves supersede.
      failures: number of current failures.
      problems: one line for each problem.
      strays: files that no live manifest names.
    """

    waves: int
    rows: int
    superseded: int
    failures: int
    problems: tuple[str, ...]
    strays: tuple[str, ...]


def verify(output: str) -> Report:
    """Checks every file of the data set in directory `output`.

    Raises:
      OutputError: there is no data set, or a manifest cannot be read.
    """
    output = filesystem.normalize(output)
    spec = read_spec(output)
    if spec is None:
        raise OutputError(f"{output} holds no data set: it has no spec.json; name the --output of a run")
    manifests = read_manifests(output)
    problems = [problem for manifest in manifests for problem in _check_wave(output, spec, manifest)]
    rows = superseded = failures = 0
    if not problems:
        for wave in live_waves(output):
            for batch in wave.rows():
                current = wave.current(batch).num_rows
                rows += current
                superseded += batch.num_rows - current
        failures = sum(1 for _ in read_failures(output))
    return Report(
        len(live(manifests)), rows, superseded, failures, tuple(problems), tuple(find_strays(output, manifests))
    )


def _check_wave(output: str, spec: Spec, manifest: Manifest) -> Iterator[str]:
    for entry in manifest.outputs:
        path = filesystem.join(output, entry.path)
        try:
            yield from _check_bytes(path, entry)
            yield from _check_rows(path, entry, spec)
        except (OSError, OutputError) as error:
            yield f"{entry.path}: {error}"
    for kind, expected in (("embeddings", manifest.embedded), ("failures", manifest.failed)):
        rows_by_format: Counter[str] = Counter()
        for entry in manifest.outputs:
            if entry.kind == kind:
                rows_by_format[entry.format] += entry.rows
        if expected and not rows_by_format:
            yield f"wave {manifest.wave}: no {kind}, {expected} in the manifest"
        for file_format, rows in sorted(rows_by_format.items()):
            if rows != expected:
                yield f"wave {manifest.wave}: {rows} {kind} in {file_format} files, {expected} in the manifest"
    if sum(manifest.failures_by_reason.values()) != manifest.failed:
        yield f"wave {manifest.wave}: failures by reason do not add up to {manifest.failed}"


def _check_bytes(path: str, entry: OutputEntry) -> Iterator[str]:
    size_bytes = crc32c = 0
    with filesystem.open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            crc32c = extend_crc32c(crc32c, chunk)
    if size_bytes != entry.size_bytes:
        yield f"{entry.path}: {size_bytes} bytes, {entry.size_bytes} in the manifest"
    elif f"{crc32c:08x}" != entry.crc32c:
        yield f"{entry.path}: CRC-32C {crc32c:08x}, {entry.crc32c} in the manifest"


def _check_rows(path: str, entry: OutputEntry, spec: Spec) -> Iterator[str]:
    if entry.kind == "failures":
        rows = sum(1 for _ in read_failures_file(path))
    else:
        rows = wrong = nonfinite = 0
        for batch in read_shard(path, entry):
            rows += batch.num_rows
            column = batch.column("embedding")
            if column.type.list_size != spec.dimension:
                wrong += batch.num_rows
                continue
            vectors = column.flatten().to_numpy().reshape(batch.num_rows, -1)
            nonfinite += int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))
        if wrong:
            yield f"{entry.path}: {wrong} vectors that do not have {spec.dimension} values"
        if nonfinite:
            yield f"{entry.path}: {nonfinite} vectors with values that are NaN or infinite"
    if rows != entry.rows:
        yield f"{entry.path}: {rows} rows, {entry.rows} in the manifest"


def find_strays(output: str, manifests: Sequence[Manifest]) -> list[str]:
    """Returns the files in the data set's directories that do not belong to it, and the files of replaced waves.

    In the staging directory, which other programs may use too, only files that runs have written.
    """
    counting = live(manifests)
    owned = {str(path) for path in owned_files(output, counting)}
    found = [
        stat.path
        for name in ("embeddings", "failures", MANIFESTS_NAME, STAGING_NAME)
        for stat in filesystem.list_files(filesystem.join(output, name))
        if name != STAGING_NAME or is_own_file(output, stat.path)
    ]
    return [path for path in dict.fromkeys((*temporary_files(output), *found)) if path not in owned]


def show_failure(output: str, key: str, to: str) -> Failure:
    """Writes the source bytes of a failure to a file: an image, or a damaged range of a TFRecord file.

    Args:
      output: directory of the data set.
      key: the failure's key.
      to: path of the file to write.

    Raises:
      UsageError: no failure has this key.
      OSError: the bytes cannot be read any more, or cannot be written.
    """
    output = filesystem.normalize(output)
    wanted = key_to_bytes(key)
    for failure in read_failures(output):
        if failure.key == wanted:
            Path(to).write_bytes(_original_bytes(output, failure))
            return failure
    raise UsageError(f"--show={key}: no failure has this key; see {output}/failures")


def _original_bytes(output: str, failure: Failure) -> bytes:
    address = Address.parse(failure.source)
    if address is None or filesystem.exists(failure.source):
        return filesystem.read_bytes(failure.source)
    path, start, stop = address.path, address.start, address.stop
    with filesystem.open_read(path) as file:
        if path.lower().endswith(".gz") and stop is not None:
            return _cut_out(GzipStream(file), start, stop)
        if path.lower().endswith(".gz"):
            items = tfrecord.read_records_sequential(GzipStream(file))
            found = next((item for item in items if isinstance(item, tfrecord.Record) and item.offset == start), None)
        elif stop is not None:
            file.seek(start)
            return file.read(stop - start)
        else:
            item = next(tfrecord.read_records(file, start, start + 1, at_boundary=True), None)
            found = item if isinstance(item, tfrecord.Record) else None
    if found is None:
        raise OSError(f"{failure.source} holds no record any more; the file has changed")
    image_features = {manifest.image_feature for manifest in read_manifests(output)}
    for name in sorted(image_features):
        record = parse_example(found.data, address="", source="", image_feature=name)
        if isinstance(record, ImageRecord):
            return record.image
    return found.data


def _cut_out(stream: GzipStream, start: int, stop: int) -> bytes:
    """Returns the uncompressed bytes from `start` to `stop`, or fewer if the stream ends earlier."""
    pieces: list[bytes] = []
    position = 0
    with contextlib.suppress(EOFError, zlib.error):  # the compressed bytes may be damaged in this range
        while position < stop and (chunk := stream.read(min(stop - position, _CHUNK_BYTES))):
            pieces.append(chunk[max(0, start - position) :])
            position += len(chunk)
    return b"".join(pieces)[: stop - start]
