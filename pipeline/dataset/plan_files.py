"""Plan files: the files of a wave, in the staging directory, for the workers and for the commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.keys import from_column
from pipeline.dataset.plan import PLAN_SCHEMA, Wave
from pipeline.dataset.tables import INPUTS_SCHEMA
from pipeline.inputs.base import ReadTask
from pipeline.inputs.input_table import to_files
from pipeline.inputs.tasks import make_tasks, record_kinds
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory
from pipeline.storage.tables import TableWriter, read_batches, release_memory

FILES_PER_PLAN_FILE = 32_000


def write_plan(directory: LockedDirectory, name: str, wave: Wave) -> tuple[str, ...]:
    """Writes the files of a wave to plan files in the staging directory; returns their paths.

    Files of records come first: they are the larger tasks.

    Raises:
      OutputError: another run has taken over the data set.
      OSError: a file cannot be written.
    """
    paths: list[str] = []
    for has_records in (True, False):
        for rows in wave.files():
            found = _has_records(rows)
            chosen = rows.filter(found if has_records else pc.invert(found))
            for start in range(0, chosen.num_rows, FILES_PER_PLAN_FILE):
                file_name = f"plan-{len(paths):05d}.parquet"
                file = directory.create(name, file_name)
                with TableWriter(file, PLAN_SCHEMA) as writer:
                    writer.write(chosen.slice(start, FILES_PER_PLAN_FILE))
                filesystem.close_durably(file)
                paths.append(directory.staged(name, file_name))
    release_memory()
    return tuple(paths)


def read_plan(path: str) -> Iterator[ReadTask]:
    """Yields the tasks in a plan file.

    Raises:
      OSError: the file cannot be read.
    """
    for rows in _read(path):
        yield from to_tasks(rows)


def to_tasks(rows: pa.RecordBatch) -> Iterator[ReadTask]:
    """Yields tasks that read the files of a wave, given as rows of `PLAN_SCHEMA`."""
    ranges = rows.column("ranges").to_pylist()
    whole = []
    for file, flat, aligned in zip(to_files(rows), ranges, rows.column("aligned").to_pylist(), strict=True):
        if flat is None:
            whole.append(file)
        else:
            yield ReadTask(file.kind, (file,), tuple(zip(flat[::2], flat[1::2], strict=True)), aligned)
    yield from make_tasks(whole)


def read_covered(
    plan_files: Sequence[str], key_feature: str | None, records: Mapping[str, int]
) -> Iterator[pa.RecordBatch]:
    """Yields the files that a wave covers, as rows of `INPUTS_SCHEMA`: those that plan files name as a whole.

    Args:
      plan_files: the plan files.
      key_feature: the feature of records that holds the keys, if any.
      records: number of records that were read, by path, for files of records.

    Raises:
      OSError: a file cannot be read.
    """
    for path in plan_files:
        for rows in _read(path):
            rows = rows.filter(pc.is_null(rows.column("ranges")))
            has_records = _has_records(rows)
            counts = pa.array([1], pa.int64()).take(pa.array([0] * rows.num_rows, pa.int8()))
            if pc.any(has_records).as_py():
                found = [records.get(from_column(path), 0) for path in rows.column("path").to_pylist()]
                counts = pc.if_else(has_records, pa.array(found, pa.int64()), counts)
            keys = pc.if_else(has_records, "offset" if key_feature is None else "feature", "name")
            columns = [rows.column(name) for name in INPUTS_SCHEMA.names[:4]]
            yield pa.record_batch([*columns, counts, keys], schema=INPUTS_SCHEMA)


def _has_records(rows: pa.RecordBatch) -> pa.BooleanArray:
    return pc.is_in(rows.column("kind"), pa.array(record_kinds(), pa.string()))


def _read(path: str) -> Iterator[pa.RecordBatch]:
    if not filesystem.is_remote(path):
        yield from read_batches(path)
        return
    with filesystem.open_read(path) as file:
        yield from pq.ParquetFile(file).iter_batches()
