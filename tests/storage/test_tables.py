import errno
import gc
import io
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.storage import tables
from pipeline.storage.tables import Scratch, TableWriter, read_batches, read_rows, write_sorted

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def rows_of(*numbers):
    return pa.record_batch([pa.array(numbers, pa.int64()), pa.array(map(str, numbers), pa.string())], schema=SCHEMA)


def numbers_in(batches):
    return [number for batch in batches for number in batch.column("number").to_pylist()]


def write(path, *batches):
    return write_all(path, batches)


def write_all(path, batches):
    with TableWriter(path, SCHEMA) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.rows


def test_a_scratch_directory_is_gone_with_its_object(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.tempfile, "tempdir", str(tmp_path))
    scratch = Scratch()
    with open(scratch.path("a"), "wb"):
        pass
    assert len(list(tmp_path.glob("embedding-pipeline-*/a"))) == 1
    del scratch
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_database_reads_and_writes_files_of_its_directory(tmp_path):
    scratch = Scratch()
    write(scratch.path("a.parquet"), rows_of(3, 1, 2))
    with scratch.database() as database:
        database.execute(
            f"COPY (SELECT * FROM read_parquet('{scratch.path('a.parquet')}') ORDER BY number) "
            f"TO '{scratch.path('b.parquet')}'"
        )
    assert numbers_in(read_batches(scratch.path("b.parquet"))) == [1, 2, 3]


def test_small_batches_share_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "GROUP_ROWS", 4)
    path = str(tmp_path / "a.parquet")
    assert write(path, *(rows_of(i) for i in range(6)), rows_of(*range(6, 16)), rows_of()) == 16
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [4, 12]
    assert numbers_in(read_batches(path)) == list(range(16))
    assert next(read_batches(path, ["text"])).schema.names == ["text"]


def test_a_table_without_rows_can_be_read(tmp_path):
    path = str(tmp_path / "a.parquet")
    assert write(path) == 0
    assert numbers_in(read_batches(path)) == []
    assert list(read_rows(path, 0, 5)) == []


def test_other_types_are_converted(tmp_path):
    path = str(tmp_path / "a.parquet")
    write(path, pa.record_batch([pa.array([1], pa.int8()), pa.array(["a"], pa.large_string())], ["number", "text"]))
    assert next(read_batches(path)).schema == SCHEMA


def test_an_open_file_stays_open():
    file = io.BytesIO()
    write(file, rows_of(1))
    assert numbers_in(pq.ParquetFile(io.BytesIO(file.getvalue())).iter_batches()) == [1]
    assert not file.closed


def test_an_error_writes_no_more_rows(tmp_path):
    path = tmp_path / "a.parquet"

    def batches():
        yield rows_of(1)
        raise ValueError("early")

    with pytest.raises(ValueError, match="early"):
        write_all(str(path), batches())
    assert numbers_in(read_batches(str(path))) == []


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 20), (0, 0), (3, 4), (3, 5), (4, 8), (5, 17), (19, 20), (10, 30), (20, 30), (7, 7)]
)
def test_a_range_of_rows(tmp_path, monkeypatch, start, stop):
    monkeypatch.setattr(tables, "GROUP_ROWS", 4)
    path = os.fspath(tmp_path / "a.parquet")
    write(path, *(rows_of(i) for i in range(20)))
    assert numbers_in(read_rows(path, start, stop)) == list(range(20))[start:stop]


def test_a_table_that_a_database_cannot_write_is_an_os_error():
    scratch = Scratch()
    expected = pytest.raises(OSError, match=r"^the tables in \S*embedding-pipeline-\S* cannot be written: ")
    with expected, scratch.database() as database:
        database.execute(f"COPY (SELECT 1) TO '{scratch.path('missing/a.parquet')}'")


def test_an_error_while_writing_names_the_file(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write(str(tmp_path / "a.parquet"), rows_of(1))
    assert raised.value.filename == str(tmp_path / "a.parquet")


@pytest.mark.parametrize("rows_in_memory", [2, 1000])
def test_a_table_is_sorted_in_memory_or_by_a_database(tmp_path, monkeypatch, rows_in_memory):
    monkeypatch.setattr(tables, "SORTED_IN_MEMORY_ROWS", rows_in_memory)
    scratch = Scratch()
    texts = ["b", "a/x", "\u00e9", "a", "A", "aa", "a b", "%FF", "z"]
    schema = pa.schema([("number", pa.int64()), ("text", pa.string())])
    with TableWriter(scratch.path("in.parquet"), schema) as writer:
        for number, text in enumerate(texts):
            writer.write(pa.record_batch([pa.array([number]), pa.array([text])], schema=schema))
    write_sorted(scratch, scratch.path("in.parquet"), scratch.path("out.parquet"), "text")
    rows = pq.read_table(scratch.path("out.parquet"))
    assert (rows.schema.names, rows.schema.types) == (schema.names, schema.types)
    assert rows.column("text").to_pylist() == sorted(texts, key=str.encode)
    assert [texts[number] for number in rows.column("number").to_pylist()] == rows.column("text").to_pylist()
