"""Checks a data set against its manifests."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core.errors import OutputError, UsageError
from pipeline.core.failures import DamagedImage, Failure
from pipeline.core.keys import key_to_bytes
from pipeline.dataset.metadata import (
    MANIFESTS_NAME,
    SHARD_FOLDERS,
    Manifest,
    OutputEntry,
    TableEntry,
    live,
    read_manifests,
    require_spec,
)
from pipeline.dataset.originals import original_bytes
from pipeline.dataset.ownership import is_own_file, owned_files, temporary_files
from pipeline.dataset.reader import LiveWave, live_waves, read_failures, read_lines, read_shard, shards_of
from pipeline.dataset.superseded import Superseded
from pipeline.embedding.dataset_spec import Spec
from pipeline.storage import filesystem
from pipeline.storage.checksum import extend_crc32c
from pipeline.storage.locked import STAGING_NAME

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


@dataclass(frozen=True)
class FileReport:
    """The result of the check of one file.

    Attributes:
      path: of the file, relative to the data set.
      problems: one line for each problem.
      current: number of its rows or failures that no newer wave supersedes; 0 if they were not counted.
      superseded: number of the others; 0 if they were not counted.
    """

    path: str
    problems: tuple[str, ...] = ()
    current: int = 0
    superseded: int = 0


def verify(output: str) -> Report:
    """Checks every file of the data set in directory `output`.

    Raises:
      OutputError: there is no data set, or a manifest cannot be read.
    """
    output = filesystem.normalize(output)
    spec, manifests = require_spec(output), read_manifests(output)
    counting = live(manifests)
    names = {manifest.wave for manifest in counting}
    reports = [check_table(output, table) for manifest in manifests for table in tables_of(manifest)]
    # The keys of a newer wave must be known before rows are counted; inputs determine them, unless keys are arbitrary.
    is_one_pass = not needs_keys(counting)
    is_counted = is_one_pass and not any(report.problems for report in reports)
    superseded = Superseded.of(output, counting) if is_counted else Superseded()
    for manifest in manifests:
        wave = LiveWave(output, manifest, superseded, notes_keys=False)
        for shard in shards_of(manifest, is_live=manifest.wave in names):
            reports.append(check_shard(output, shard.entry, spec, wave if is_counted and shard.is_counted else None))
    report = add_up(output, manifests, reports)
    return report if is_one_pass or report.problems else _count(output, report)


def _count(output: str, report: Report) -> Report:
    """Returns a report with the numbers of current rows and failures, read from the newest to the oldest wave."""
    rows = superseded = failures = 0
    for wave in live_waves(output):
        for batch in wave.rows():
            current = wave.current(batch).num_rows
            rows += current
            superseded += batch.num_rows - current
        failures += sum(1 for _ in wave.current_failures())
    return dataclasses.replace(report, rows=rows, superseded=superseded, failures=failures)


def needs_keys(manifests: Sequence[Manifest]) -> bool:
    """Returns whether the keys of all rows must be read to find the superseded rows of some live waves."""
    return len(manifests) > 1 and not all(manifest.has_keys_from_names for manifest in manifests)


def tables_of(manifest: Manifest) -> Iterator[TableEntry]:
    """Yields the tables of a manifest that are files."""
    return (table for table in (*manifest.inputs, *manifest.retried) if not table.is_inline)


def files_of(manifest: Manifest) -> tuple[TableEntry | OutputEntry, ...]:
    """Returns the files of a wave besides its manifest."""
    return (*tables_of(manifest), *manifest.outputs)


def add_up(output: str, manifests: Sequence[Manifest], reports: Iterable[FileReport]) -> Report:
    """Returns the report on a data set.

    Args:
      output: directory of the data set.
      manifests: all manifests of the data set.
      reports: on all of its tables and shards, in any order; several of one file are merged.
    """
    by_path: dict[str, list[FileReport]] = {}
    for report in reports:
        by_path.setdefault(report.path, []).append(report)
    problems: list[str] = []
    counts: Counter[str] = Counter()
    for manifest in manifests:
        for entry in files_of(manifest):
            found = by_path.get(entry.path, [])
            problems += dict.fromkeys(problem for report in found for problem in report.problems)
            if isinstance(entry, OutputEntry):
                counts[entry.kind] += sum(report.current for report in found)
                counts[f"superseded {entry.kind}"] += sum(report.superseded for report in found)
        problems += _check_totals(manifest)
    if problems:
        counts.clear()
    return Report(
        waves=len(live(manifests)),
        rows=counts["embeddings"],
        superseded=counts["superseded embeddings"],
        failures=counts["failures"],
        problems=tuple(problems),
        strays=tuple(find_strays(output, manifests)),
    )


def _check_totals(manifest: Manifest) -> Iterator[str]:
    for kind, expected in (
        ("embeddings", manifest.embedded),
        ("failures", manifest.failed),
        ("damaged", manifest.damaged_but_embedded),
    ):
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


def check_table(output: str, entry: TableEntry) -> FileReport:
    """Checks the bytes of one table of a manifest."""
    problems: list[str] = []
    try:
        problems.extend(_check_bytes(filesystem.join(output, entry.path), entry))
    except OSError as error:
        problems.append(f"{entry.path}: {error}")
    return FileReport(entry.path, tuple(problems))


def check_shard(output: str, entry: OutputEntry, spec: Spec, wave: LiveWave | None = None) -> FileReport:
    """Checks one shard: its bytes, the number of its rows, and the dimension and finiteness of its vectors.

    Args:
      output: directory of the data set.
      entry: the shard.
      spec: of the data set.
      wave: of the shard, to count the rows or failures that are current; None: they are not counted.
    """
    path = filesystem.join(output, entry.path)
    problems: list[str] = []
    count = _Count()
    try:
        problems.extend(_check_bytes(path, entry))
        if entry.kind == "embeddings":
            for batch in read_shard(path, entry):
                count.add(batch.num_rows, batch.num_rows if wave is None else wave.current(batch).num_rows)
                count.add_vectors(batch, spec.dimension)
        else:
            lines: Iterator[Failure | DamagedImage] = (
                read_lines(path, Failure) if entry.kind == "failures" else read_lines(path, DamagedImage)
            )
            for line in lines:
                count.add(1, int(wave is None or wave.is_current(line)))
        problems.extend(count.problems(entry, spec.dimension))
    except (OSError, OutputError) as error:
        problems.append(f"{entry.path}: {error}")
    if wave is None:
        return FileReport(entry.path, tuple(problems))
    return FileReport(entry.path, tuple(problems), count.current, count.rows - count.current)


@dataclass
class _Count:
    """The counts of a shard."""

    rows: int = 0
    current: int = 0
    wrong: int = 0
    nonfinite: int = 0

    def add(self, rows: int, current: int) -> None:
        self.rows += rows
        self.current += current

    def add_vectors(self, batch: pa.RecordBatch, dimension: int) -> None:
        column = batch.column("embedding")
        if column.type.list_size != dimension:
            self.wrong += batch.num_rows
            return
        vectors = column.flatten().to_numpy().reshape(batch.num_rows, -1)
        self.nonfinite += int(np.count_nonzero(~np.isfinite(vectors).all(axis=1)))

    def problems(self, entry: OutputEntry, dimension: int) -> Iterator[str]:
        if self.wrong:
            yield f"{entry.path}: {self.wrong} vectors that do not have {dimension} values"
        if self.nonfinite:
            yield f"{entry.path}: {self.nonfinite} vectors with values that are NaN or infinite"
        if self.rows != entry.rows:
            yield f"{entry.path}: {self.rows} rows, {entry.rows} in the manifest"


def _check_bytes(path: str, entry: OutputEntry | TableEntry) -> Iterator[str]:
    size_bytes = crc32c = 0
    with filesystem.open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            crc32c = extend_crc32c(crc32c, chunk)
    if size_bytes != entry.size_bytes:
        yield f"{entry.path}: {size_bytes} bytes, {entry.size_bytes} in the manifest"
    elif f"{crc32c:08x}" != entry.crc32c:
        yield f"{entry.path}: CRC-32C {crc32c:08x}, {entry.crc32c} in the manifest"


def find_strays(output: str, manifests: Sequence[Manifest]) -> list[str]:
    """Returns the files in the data set's directories that do not belong to it, and the files of replaced waves.

    In the staging directory, which other programs may use too, only files that runs have written.
    """
    replaced = {wave for manifest in manifests for wave in manifest.replaces}
    owned = set(owned_files(output, [manifest for manifest in manifests if manifest.wave not in replaced]))
    found = [
        stat.path
        for name in (*SHARD_FOLDERS, MANIFESTS_NAME, STAGING_NAME)
        for stat in filesystem.list_files(filesystem.join(output, name))
        if name != STAGING_NAME or is_own_file(output, stat.path)
    ]
    return [path for path in dict.fromkeys((*temporary_files(output), *found)) if path not in owned]


def show_failure(output: str, key: str, to: str) -> Failure:
    """Writes the source bytes of a failure to a file: an image, or a damaged range of a file of records.

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
            Path(to).write_bytes(original_bytes(output, failure))
            return failure
    raise UsageError(f"--show={key}: no failure has this key; see {output}/failures")
