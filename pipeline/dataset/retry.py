"""Planning of another try: the sources of earlier failures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_text, to_column
from pipeline.core.records import Address
from pipeline.inputs.base import NO_END
from pipeline.inputs.tasks import record_kinds
from pipeline.storage.tables import GROUP_ROWS, Scratch, TableWriter

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FAILURES_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("path", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("aligned", pa.bool_()),
    ]
)
"""Sources of failures; the other columns are those of the source's address, and null if it is none."""


@dataclass(frozen=True)
class Retry:
    """The files to read again.

    Attributes:
      path: a Parquet file with `pipeline.dataset.plan.PLAN_SCHEMA`.
      sizes: a Parquet file with the bytes to read of each of its rows, as `size_bytes`.
      retried: a Parquet file with the sources that are tried again, each as `source` with its `row` in `path`.
      sources: number of these sources.
    """

    path: str
    sizes: str
    retried: str
    sources: int


def load_failures(database: DuckDBPyConnection, scratch: Scratch, failures: Iterable[Failure]) -> None:
    """Creates the table `failures` of a database, with the sources of some failures."""
    failed = scratch.path("failures.parquet")
    with TableWriter(failed, _FAILURES_SCHEMA) as writer:
        waiting = iter(failures)
        while chunk := list(itertools.islice(waiting, GROUP_ROWS)):
            writer.write(_to_rows(chunk))
    database.execute(f"CREATE TABLE failures AS SELECT * FROM read_parquet('{failed}')")


def plan_retry(database: DuckDBPyConnection, scratch: Scratch) -> Retry | None:
    """Plans to read the sources of failures again: whole files, or ranges of files; returns None if there are none.

    A file of records that could not be read at all is no longer done.

    Args:
      database: with the tables `failures`, and `settled` of `pipeline.dataset.plan`.
      scratch: the directory of the tables to write.
    """
    names = ", ".join(f"'{name}'" for name in record_kinds())
    retry, sizes, retried = map(scratch.path, ("retry.parquet", "retry-sizes.parquet", "retried.parquet"))
    database.execute(
        f"UPDATE settled SET done = false WHERE kind IN ({names}) AND path IN (SELECT source FROM failures)"
    )
    database.execute(_WHOLE)
    database.execute(_PARTS)
    database.execute(_RETRY)
    files = database.execute(f"COPY (SELECT * EXCLUDE row FROM retry ORDER BY row) TO '{retry}'").fetchall()[0][0]
    database.execute(f"COPY ({_SIZES}) TO '{sizes}'")
    sources = database.execute(f"COPY ({_RETRIED}) TO '{retried}'").fetchall()[0][0]
    return Retry(retry, sizes, retried, sources) if files else None


_WHOLE = """
    CREATE TABLE whole AS
    SELECT * FROM settled WHERE done AND path IN (SELECT source FROM failures)
"""
_PARTS = """
    CREATE TABLE parts AS
    SELECT failures.* FROM failures
    WHERE source NOT IN (SELECT path FROM whole) AND path IN (SELECT path FROM settled WHERE done)
"""
_RETRY = """
    CREATE TABLE retry AS
    SELECT * EXCLUDE (number), row_number() OVER (ORDER BY number, path, aligned) - 1 AS row FROM (
      SELECT settled.path, name, kind, size_bytes, mtime_s, flatten(ranges) AS ranges, aligned, 0 AS number
      FROM settled JOIN (
        SELECT path, aligned, list_sort(list(DISTINCT [start, stop])) AS ranges FROM parts GROUP BY path, aligned
      ) AS ranged USING (path)
      UNION ALL
      SELECT path, name, kind, size_bytes, mtime_s, NULL, NULL, 1 FROM whole
    )
"""
# A compressed file has more bytes than its size says; the size is an estimate then.
_SIZES = """
    SELECT CASE WHEN ranges IS NULL THEN size_bytes ELSE least(
      size_bytes, list_sum([ranges[i + 1] - ranges[i] FOR i IN range(1, len(ranges), 2)])
    ) END AS size_bytes
    FROM retry ORDER BY row
"""
_RETRIED = """
    SELECT row, source FROM (
      SELECT row, source FROM failures JOIN retry ON retry.path = failures.source AND ranges IS NULL
      UNION ALL
      SELECT row, source FROM parts JOIN retry USING (path, aligned) WHERE ranges IS NOT NULL
    ) ORDER BY row, source
"""


def _to_rows(failures: Iterable[Failure]) -> pa.RecordBatch:
    rows = [_to_row(failure) for failure in failures]
    return pa.RecordBatch.from_pylist(rows, _FAILURES_SCHEMA)


def _to_row(failure: Failure) -> dict[str, object]:
    source = to_column(failure.source)
    address = Address.parse(failure.source)
    if address is None:
        return {"source": source}
    start, stop = address.start, address.stop or 0
    if failure.reason == "read_error" and address.stop is None:
        stop = NO_END  # a compressed file, whose uncompressed size is unknown
    # The key of a completely unread part is its range; the runner may have cut inside a record.
    aligned = not key_to_text(failure.key).endswith(f"@{start}-{stop}")
    return {
        "source": source,
        "path": to_column(address.path),
        "start": start,
        "stop": max(stop, start + 1),
        "aligned": aligned,
    }
