"""Several formats in one data set: a folder for each, and what compaction keeps in each."""

import datetime
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import read_table
from pipeline.core.records import ColumnValue, Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import next_wave, read_manifests
from pipeline.dataset.ownership import remove_remains, start_over
from pipeline.dataset.verify import verify
from tests.datasets import SPEC, add_wave, complete, contents, entry, make_batch, read_rows, unlocked

BOTH = ("tfrecord", "parquet")


def folders(output):
    """The endings of the files in each folder of rows."""
    return {
        path.name: {file.suffix for file in path.iterdir()}
        for path in output.glob("embeddings*")
        if any(path.iterdir())
    }


def times(output):
    return {row["key"]: row["event_timestamp"] for row in read_table(output).read_all().to_pylist()}


def test_a_single_format_is_in_embeddings(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=("parquet",))
    assert folders(tmp_path) == {"embeddings": {".parquet"}}


@pytest.mark.parametrize("first", ["parquet", "tfrecord"])
def test_no_folder_ever_holds_two_formats(tmp_path, first):
    """Whatever the formats of later waves, and after compaction: the first format keeps `embeddings/`."""
    (second,) = set(BOTH) - {first}
    expected = {"embeddings": {f".{first}"}, f"embeddings-{second}": {f".{second}"}}
    for index, formats in enumerate([(first,), (second,), BOTH, BOTH[::-1]]):
        add_wave(tmp_path, f"{index:05d}", make_batch({f"{index}": [1, 2, 3]}), formats=formats)
    assert folders(tmp_path) == expected
    assert complete(tmp_path)
    assert len(read_rows(tmp_path)) == len(read_table(tmp_path).read_all()) == 4
    compact(str(tmp_path))
    assert folders(tmp_path) == expected
    assert complete(tmp_path)
    assert [len(pq.read_table(path)) for path in tmp_path.rglob("embeddings*.parquet")] == [4]
    start_over(unlocked(tmp_path), SPEC)
    assert folders(tmp_path) == {}
    add_wave(tmp_path, next_wave(read_manifests(str(tmp_path))), make_batch({"a": [1, 2, 3]}), formats=(second,))
    assert folders(tmp_path) == {"embeddings": {f".{second}"}}


def test_strays_and_remains_in_the_second_folder(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=BOTH)
    uncommitted = tmp_path / "embeddings-parquet/embeddings-00001-00000-of-00001.parquet"
    shutil.copy(next((tmp_path / "embeddings-parquet").iterdir()), uncommitted)
    assert verify(str(tmp_path)).strays == (str(uncommitted),)
    remove_remains(unlocked(tmp_path))
    assert not uncommitted.exists()
    assert complete(tmp_path)


def test_compaction_keeps_types_of_columns_and_bytes_of_keys(tmp_path):
    """Each format is written from its own files."""
    features = {"small": ColumnValue(pa.int32(), 5), "exact": ColumnValue(pa.float64(), 0.1)}
    for index, key in enumerate([b"\xff", b"b"]):
        add_wave(tmp_path, f"{index:05d}", make_batch({key: [1, 2, 3]}, features=features), formats=BOTH)
    schema, rows = read_table(tmp_path).schema, read_rows(tmp_path)
    assert schema.field("exact").type == pa.float64()
    compact(str(tmp_path))
    assert read_table(tmp_path).schema == schema
    assert [row["exact"] for row in read_table(tmp_path).read_all().to_pylist()] == [0.1, 0.1]
    assert rows.keys() == {b"\xff", b"b"}
    assert read_rows(tmp_path) == rows
    (file,) = (tmp_path / "embeddings-parquet").iterdir()
    assert [pq.read_schema(file).field(name).type for name in features] == [pa.int32(), pa.float64()]
    assert complete(tmp_path)


def test_compaction_keeps_the_time_of_each_row_in_parquet(tmp_path):
    features = {"label": Feature("int64", (3,))}
    add_wave(
        tmp_path,
        "00000",
        make_batch({"a": [1, 2, 3], "b": [1, 2, 3]}),
        inputs=[entry("a"), entry("b")],
        formats=("parquet",),
    )
    add_wave(tmp_path, "00001", make_batch({"b": [4, 5, 6]}, features=features), inputs=[entry("b")], formats=BOTH)
    before = times(tmp_path)
    first, second = read_manifests(str(tmp_path))
    assert before == {"a": first.committed, "b": second.committed}
    assert first.committed < second.committed
    compact(str(tmp_path))
    assert times(tmp_path) == before
    add_wave(tmp_path, "00003", make_batch({"c": [7, 8, 9]}), inputs=[entry("c")], formats=BOTH)
    before = times(tmp_path)
    compact(str(tmp_path))
    assert times(tmp_path) == before
    (file,) = tmp_path.glob("embeddings/*.parquet")
    raw = pq.read_table(file, columns=["key", "event_timestamp"]).to_pylist()
    assert {row["key"]: row["event_timestamp"] for row in raw} == before


def test_rows_of_compacted_tfrecords_have_the_newest_time_of_their_waves(tmp_path):
    for index in range(2):
        add_wave(tmp_path, f"{index:05d}", make_batch({f"{index}": [1, 2, 3]}), inputs=[entry(f"{index}")])
    newest = read_manifests(str(tmp_path))[-1].committed
    compact(str(tmp_path))
    assert set(times(tmp_path).values()) == {newest}
    assert newest < datetime.datetime.now(datetime.UTC)
    assert read_rows(tmp_path).keys() == {b"0", b"1"}
    assert all("event_timestamp" not in row for row in read_rows(tmp_path).values())


def test_a_feature_of_that_name_stays_in_tfrecords(tmp_path):
    features = {"event_timestamp": Feature("int64", (3,))}
    for index in range(2):
        add_wave(tmp_path, f"{index:05d}", make_batch({f"{index}": [1, 2, 3]}, features=features))
    compact(str(tmp_path))
    assert [row["event_timestamp"] for row in read_rows(tmp_path).values()] == [[3], [3]]
    assert read_table(tmp_path).schema.field("event_timestamp").type == pa.timestamp("us", "UTC")


def test_a_mixed_folder_of_an_earlier_version_is_cleaned_up_even_if_there_is_one_wave(tmp_path):
    manifest = add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), inputs=[entry("a")], formats=BOTH)
    text = (tmp_path / "manifests/00000.json").read_text().replace("embeddings-parquet/", "embeddings/")
    (tmp_path / "manifests/00000.json").write_text(text)
    (path,) = (tmp_path / "embeddings-parquet").iterdir()
    path.rename(tmp_path / "embeddings" / path.name)
    assert folders(tmp_path) == {"embeddings": {".tfrecord", ".parquet"}}
    assert complete(tmp_path)
    assert compact(str(tmp_path)).rows == 1
    assert folders(tmp_path) == {"embeddings": {".tfrecord"}, "embeddings-parquet": {".parquet"}}
    assert complete(tmp_path)
    before = contents(tmp_path)
    assert compact(str(tmp_path)).rows == 0
    assert contents(tmp_path) == before
    assert times(tmp_path) == {"a": manifest.committed}
