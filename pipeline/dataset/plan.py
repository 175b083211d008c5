"""Planning: the inputs that the data set's manifests do not cover, cut into waves.

The inputs and the plan are tables on disk, and what is missing is a join: the memory does not grow with the number of
files. The files of a wave are written to plan files in the staging directory, which the workers read. The pipeline
graph, which runners limit to some megabytes, therefore does not grow either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.failures import Failure
from pipeline.core.keys import from_column
from pipeline.dataset.metadata import Manifest, live
from pipeline.dataset.retry import Retry, load_failures, plan_retry
from pipeline.dataset.tables import RETRIED_SCHEMA, copy_inputs
from pipeline.inputs.base import UNKNOWN_BYTES
from pipeline.inputs.input_table import INPUT_SCHEMA, InputTable
from pipeline.storage.tables import Scratch, read_batches, read_rows, release_memory, write_sorted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_log = logging.getLogger(__name__)

MAX_WAVE_FILES = 1_000_000
"""Largest number of files in a wave: what a commit holds in memory grows with it."""

PLAN_SCHEMA = INPUT_SCHEMA.append(pa.field("ranges", pa.list_(pa.int64()))).append(pa.field("aligned", pa.bool_()))
"""A file to read: `InputFile`, and the `ranges` (start, stop, start, stop, ...) and `aligned` of its `ReadTask`."""


@dataclass(frozen=True)
class Wave:
    """The files that one pipeline reads and commits.

    Attributes:
      path: a Parquet file with `PLAN_SCHEMA` or `INPUT_SCHEMA`, on this machine's disk.
      start: first row of the wave in the file.
      stop: last row of the wave (exclusive).
      retried: a Parquet file with the sources of earlier failures that the plan tries again, each as `source` with the
        `row` of its file; None if the wave tries none.
    """

    path: str
    start: int
    stop: int
    retried: str | None = None

    def files(self) -> Iterator[pa.RecordBatch]:
        """Yields the files as rows of `PLAN_SCHEMA`."""
        for rows in read_rows(self.path, self.start, self.stop):
            if len(rows.schema) == len(PLAN_SCHEMA):
                yield rows
            else:
                nothing = [pa.nulls(rows.num_rows, field.type) for field in list(PLAN_SCHEMA)[-2:]]
                yield pa.record_batch([*rows.columns, *nothing], schema=PLAN_SCHEMA)

    def size_bytes(self) -> int:
        """Returns the approximate number of bytes of the files; a file of unknown size counts as `UNKNOWN_BYTES`."""
        return sum(
            int(_known_sizes(rows.column("size_bytes")).sum()) for rows in read_rows(self.path, self.start, self.stop)
        )

    def unsized_files(self) -> int:
        """Returns the number of files of unknown size, such as web addresses."""
        return sum(
            int((rows.column("size_bytes").to_numpy() == 0).sum())
            for rows in read_rows(self.path, self.start, self.stop)
        )

    def sources(self) -> Iterator[pa.RecordBatch]:
        """Yields the sources of earlier failures that the wave tries again, as rows of `RETRIED_SCHEMA`."""
        if self.retried is not None:
            for rows in read_batches(self.retried):
                row = rows.column("row")
                mine = pc.and_(pc.greater_equal(row, self.start), pc.less(row, self.stop))
                yield pa.record_batch([rows.filter(mine).column("source")], schema=RETRIED_SCHEMA)


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
      waves: the waves, in order.
      skipped: number of records that earlier runs have done.
      scratch: the directory of the waves' tables, which exists as long as this object.
    """

    waves: tuple[Wave, ...]
    skipped: int
    scratch: Scratch


def make_plan(
    files: InputTable,
    output: str,
    manifests: Sequence[Manifest],
    *,
    wave_bytes: int | None,
    failures: Iterable[Failure] = (),
    wave_files: int = MAX_WAVE_FILES,
    image_feature: str | None = None,
) -> Plan:
    """Returns the work after which a data set covers the files in their present state.

    A file is done if a live wave covers it with the same path, size and modification time, and with the name from
    `_SETTLED`. A file of records is not done if the wave read the images from another feature.

    Args:
      files: all files that the data set should cover.
      output: directory of the data set.
      manifests: the manifests of the data set.
      wave_bytes: input bytes per wave, which groups whole files; None for no such limit.
      failures: earlier failures to retry; those of done files get waves of their own.
      wave_files: largest number of files in a wave.
      image_feature: the feature that holds the images, in the form of manifests; None for any.

    Raises:
      OutputError: a manifest's table cannot be read.
    """
    scratch = Scratch()
    planned = scratch.path("planned.parquet")
    counting = live(manifests)
    if counting:
        of_others = [item.wave for item in counting if image_feature not in (None, item.image_feature)]
        skipped, retry = _plan_missing(files, output, counting, of_others, failures, scratch, planned)
    else:
        skipped, retry = 0, None
        write_sorted(scratch, files.path, planned, "path")
    release_memory()
    waves = [Wave(planned, start, stop) for start, stop in _cut(_sizes(planned), wave_bytes, wave_files)]
    if retry is not None:
        ranges = _cut(_sizes(retry.sizes), wave_bytes, wave_files)
        waves += [Wave(retry.path, start, stop, retry.retried) for start, stop in ranges]
    return Plan(tuple(waves), skipped, scratch)


def _plan_missing(
    files: InputTable,
    output: str,
    counting: Sequence[Manifest],
    of_others: Sequence[str],
    failures: Iterable[Failure],
    scratch: Scratch,
    planned: str,
) -> tuple[int, Retry | None]:
    """Writes the files that live waves do not cover to a table; returns the records done, and the retries."""
    with scratch.database() as database:
        database.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet('{files.path}')")
        covered = copy_inputs(output, counting, scratch, "covered.parquet")
        database.execute(
            _COVERED.format(path=covered, of_others=", ".join(str(int(wave)) for wave in of_others) or "-1")
        )
        load_failures(database, scratch, failures)
        for statement in (_REPEATED_PATHS, _REPEATED_NAMES, _OPEN, _NEWEST, _OWNERS, _SETTLED):
            database.execute(statement)
        found = plan_retry(database, scratch)
        _warn_of_taken_names(database)
        skipped = int(database.execute(_SKIPPED).fetchall()[0][0])
        columns = ", ".join(INPUT_SCHEMA.names)
        database.execute(f"COPY (SELECT {columns} FROM settled WHERE NOT done ORDER BY path) TO '{planned}'")
    return (skipped, None) if found is None else (skipped - found.sources, found)


_COVERED = """
    CREATE VIEW covered AS
    SELECT * REPLACE (CASE WHEN keys <> 'name' AND wave IN ({of_others}) THEN -1 ELSE size_bytes END AS size_bytes)
    FROM read_parquet('{path}')
"""
"""The inputs of waves; a file of records whose wave read another image feature has no size, and so is not done."""

_REPEATED_PATHS = """
    CREATE TABLE repeated_paths AS SELECT path FROM covered GROUP BY path HAVING count(*) > 1
"""
_REPEATED_NAMES = """
    CREATE TABLE repeated_names AS SELECT name FROM covered GROUP BY name HAVING count(*) > 1
"""

_DONE = """
    covered.name = files.name AND covered.size_bytes = files.size_bytes AND covered.mtime_s = files.mtime_s
    AND files.name NOT IN (SELECT name FROM repeated_names)
    AND files.path NOT IN (SELECT path FROM failures WHERE path IS NOT NULL UNION ALL SELECT source FROM failures)
"""
_OPEN = f"""
    CREATE TABLE open AS
    SELECT files.* FROM files LEFT JOIN covered USING (path)
    WHERE (covered.path IS NULL OR NOT ({_DONE})) AND files.path NOT IN (SELECT path FROM repeated_paths)
    UNION ALL
    SELECT * FROM files WHERE path IN (SELECT path FROM repeated_paths)
"""
"""The files that are not evidently done: those that only one wave has, as they are now, under a name of their own."""

_SKIPPED = f"""
    SELECT coalesce(sum(records), 0) FROM (
      SELECT covered.records FROM files JOIN covered USING (path)
      WHERE {_DONE} AND files.path NOT IN (SELECT path FROM repeated_paths)
      UNION ALL
      SELECT records FROM settled WHERE done
    )
"""

_NEWEST = """
    CREATE TABLE newest AS
    SELECT path, arg_max(covered, wave) AS entry FROM covered WHERE path IN (SELECT path FROM open) GROUP BY path
"""
"""The newest entry of each path."""

_OWNERS = """
    CREATE TABLE owners AS
    SELECT name, arg_max(path, wave) AS path FROM covered
    WHERE keys <> 'feature' AND name IN (SELECT name FROM open UNION ALL SELECT entry.name FROM newest)
    GROUP BY name
"""
"""The file that the rows with the keys of a name are from."""

# A file keeps its name in the data set even if other input patterns match it now; otherwise rows with its old keys
# would remain. Two exceptions get the new name: no row of the file has the old name any more, or another file of this
# run has that name.
_SETTLED = """
    CREATE TABLE settled AS
    SELECT path, name, kind, size_bytes, mtime_s, entry.records AS records,
      coalesce(
        entry.size_bytes = size_bytes AND entry.mtime_s = mtime_s
        AND (owner IS NULL OR entry.keys = 'feature' OR (owner = path AND entry.name = name)), false
      ) AS done
    FROM (
      SELECT files.path, files.kind, files.size_bytes, files.mtime_s, newest.entry, owners.path AS owner,
        CASE WHEN owners.path = files.path AND coalesce(others.path, files.path) = files.path
          THEN newest.entry.name ELSE files.name END AS name
      FROM open AS files
      LEFT JOIN newest ON newest.path = files.path
      LEFT JOIN owners ON owners.name = newest.entry.name
      LEFT JOIN files AS others ON others.name = newest.entry.name AND newest.entry.name <> files.name
    )
"""
"""The open files with their final names, of which the keys are made, and whether they are done."""

_TAKEN = """
    SELECT settled.name, settled.path, owners.path, count(*) OVER ()
    FROM settled JOIN owners USING (name)
    WHERE NOT done AND owners.path <> settled.path AND owners.path NOT IN (SELECT path FROM files)
    ORDER BY settled.path LIMIT 1
"""


def _warn_of_taken_names(database: DuckDBPyConnection) -> None:
    """Warns if files of this run replace rows with the same keys from files that this run does not read."""
    for name, path, owner, count in database.execute(_TAKEN).fetchall():
        _log.warning(
            "%d files have keys that the data set has from other files, and replace their rows: %s is from %s now, and "
            "was from %s; to keep both, name both inputs in one run",
            count,
            *map(from_column, (name, path, owner)),
        )


def _sizes(path: str) -> Iterator[np.ndarray]:
    for rows in read_batches(path, ["size_bytes"]):
        yield _known_sizes(rows.column("size_bytes"))


def _known_sizes(column: pa.Array) -> np.ndarray:
    sizes = column.to_numpy(zero_copy_only=False)
    return np.where(sizes == 0, UNKNOWN_BYTES, sizes)


def _cut(sizes: Iterable[np.ndarray], wave_bytes: int | None, wave_files: int) -> Iterator[tuple[int, int]]:
    """Yields the rows of each wave: whole files up to `wave_bytes`, or one larger file; at most `wave_files`."""
    limit = wave_bytes if wave_bytes is not None else np.iinfo(np.int64).max >> 1
    start = position = 0  # first row of the wave; first row of the batch
    left = limit
    for batch in sizes:
        ends = np.cumsum(batch)
        begin = before = 0  # first row of the batch that is not in a wave yet; bytes before it
        while begin < len(batch):
            fit = int(np.searchsorted(ends, before + left, side="right"))
            stop = min(fit, start + wave_files - position)
            if stop == len(batch):
                left -= int(ends[-1]) - before
                break
            if position + stop <= start:  # one file that is larger than a wave
                stop = begin + 1
            yield start, position + stop
            begin, before = stop, int(ends[stop - 1]) if stop else 0
            start, left = position + stop, limit
        position += len(batch)
    if position > start:
        yield start, position
