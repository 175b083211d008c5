import datetime
import gzip
import io
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import OutputError
from pipeline.core.records import EmbeddingBatch, Failure, Feature
from pipeline.dataset import metadata, shards
from pipeline.dataset.metadata import OutputEntry
from pipeline.dataset.reader import read_failures_file, read_shard
from pipeline.dataset.shards import WaveFormat, WaveWriter
from pipeline.storage import filesystem
from pipeline.storage.checksum import crc32c
from pipeline.tfrecords.tfrecord import Record, read_records_sequential
from tests.datasets import SPEC, STARTED, make_batch, make_failure, stage

HOSTILE_KEYS = [b"line\nbreak\r\n", b"nul\0", b"../../etc/passwd", b"x" * 10_000, b"\xff\xfe\x80", "ünï".encode(), b""]


def rows_of(shard):
    entry = OutputEntry("embeddings/x", shard.kind, shard.format, shard.size_bytes, "", shard.rows)
    path = shard.path
    if shard.extension.endswith(".gz"):  # told by the name, which a staged file has not got yet
        path = shard.path + ".gz"
        filesystem.rename(shard.path, path)
    return [row for batch in read_shard(path, entry) for row in batch.to_pylist()]


def read_bytes(shard):
    with open(shard.path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    ("formats", "compression"),
    [(("tfrecord",), "none"), (("tfrecord",), "gzip"), (("parquet",), "none"), (("tfrecord", "parquet"), "gzip")],
)
def test_rows_come_back_and_size_and_checksum_are_the_files(tmp_path, formats, compression):
    batches = [make_batch({f"k{b}{i}": [b, i, 0.5] for i in range(3)}) for b in range(2)]
    staged = stage(tmp_path, *batches, formats=formats, compression=compression)
    assert [shard.format for shard in staged] == list(formats)
    for shard in staged:
        data = read_bytes(shard)
        assert (shard.size_bytes, shard.crc32c, shard.rows) == (len(data), crc32c(data), 6)
        assert shard.first_key == b"k00"
        assert [(row["key"], row["embedding"]) for row in rows_of(shard)] == [
            (f"k{b}{i}".encode(), [b, i, 0.5]) for b in range(2) for i in range(3)
        ]


def test_a_tfrecord_file_is_one_and_gzip_has_no_time_stamp(tmp_path):
    (plain,) = stage(tmp_path, make_batch({"a": [1, 2, 3]}))
    (packed,) = stage(tmp_path, make_batch({"a": [1, 2, 3]}), compression="gzip")
    for data in (read_bytes(plain), gzip.decompress(read_bytes(packed))):
        (record,) = read_records_sequential(io.BytesIO(data))
        assert isinstance(record, Record)
    assert read_bytes(packed)[4:8] == bytes(4)
    assert (plain.extension, packed.extension) == (".tfrecord", ".tfrecord.gz")


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: repr(key[:12]))
def test_any_key_survives_in_tfrecord_and_failures(tmp_path, key):
    failure = Failure(key, "/in/\udcff\n", "decode", "empty", "two\nlines \udcff")
    rows, failures = stage(tmp_path, EmbeddingBatch(make_batch({key: [1, 2, 3]}).rows, (failure,), ("/in/x",)))
    assert [row["key"] for row in rows_of(rows)] == [key]
    assert list(read_failures_file(failures.path)) == [failure]
    assert read_bytes(failures).count(b"\n") == 1


@settings(deadline=None, max_examples=30)
@given(keys=st.lists(st.binary(max_size=20), min_size=1, max_size=5, unique=True))
def test_keys_in_parquet_are_text_and_the_bytes_that_are_none_are_escaped(tmp_path_factory, keys):
    (shard,) = stage(
        tmp_path_factory.mktemp("parquet"), make_batch({key: [1, 2, 3] for key in keys}), formats=("parquet",)
    )
    assert pq.read_table(shard.path)["key"].to_pylist() == [key.decode("utf-8", "backslashreplace") for key in keys]


def test_parquet_has_the_schema_of_the_contract(tmp_path):
    features = {
        "label": Feature("int64", (3,)),
        "name": Feature("bytes", (b"x", b"y")),
        "box": Feature("float", (0.5,)),
    }
    batch = make_batch({"a": [1, 2, 3], "b": [4, 5, 6]}, features=features)
    (shard,) = stage(tmp_path, batch, formats=("parquet",))
    file = pq.ParquetFile(shard.path)
    assert file.schema_arrow.remove_metadata() == pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("embedding", pa.list_(pa.float32(), 3)),
            pa.field("label", pa.list_(pa.int64())),
            pa.field("name", pa.list_(pa.binary())),
            pa.field("box", pa.list_(pa.float32())),
            pa.field("event_timestamp", pa.timestamp("us", tz="UTC")),
        ]
    )
    assert json.loads(file.metadata.metadata[b"spec.json"]) == json.loads(metadata.to_json(SPEC))
    assert {file.metadata.row_group(0).column(i).compression for i in range(6)} == {"ZSTD"}
    assert file.read()["event_timestamp"].to_pylist() == [STARTED, STARTED]
    assert file.read()["label"].to_pylist() == [[3], [3]]


def test_parquet_is_for_pandas(tmp_path):
    (shard,) = stage(tmp_path, make_batch({"a": [1, 2, 3], "b": [4, 5, 6]}), formats=("parquet",))
    frame = pandas.read_parquet(shard.path)
    assert frame["key"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(np.stack(frame["embedding"]), [[1, 2, 3], [4, 5, 6]])
    assert frame["event_timestamp"][0] == pandas.Timestamp(STARTED)


def test_parquet_has_nulls_for_features_that_a_row_lacks(tmp_path):
    with_label = make_batch({"a": [1, 2, 3]}, features={"label": Feature("int64", (3,))})
    without = make_batch({"b": [1, 2, 3]})
    (shard,) = stage(tmp_path, without, with_label, without, formats=("parquet",))
    assert pq.read_table(shard.path)["label"].to_pylist() == [None, [3], None]


def test_parquet_begins_a_file_where_the_columns_change(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 1)
    batches = [
        make_batch({"a": [1, 2, 3]}),
        make_batch({"b": [1, 2, 3]}, features={"label": Feature("int64", (3,))}),
        make_batch({"c": [1, 2, 3]}, features={"label": Feature("bytes", (b"x",))}),
        make_batch({"d": [1, 2, 3]}),
    ]
    staged = stage(tmp_path, *batches, formats=("tfrecord", "parquet"))
    parquet = [shard for shard in staged if shard.format == "parquet"]
    assert [pq.read_table(shard.path)["key"].to_pylist() for shard in parquet] == [["a", "d"], ["b"], ["c"]]
    (tfrecord,) = [shard for shard in staged if shard.format == "tfrecord"]
    assert [row["key"] for row in rows_of(tfrecord)] == [b"a", b"b", b"c", b"d"]


def test_parquet_has_a_file_for_each_type_that_a_feature_has(tmp_path):
    kinds = (("int64", 1), ("bytes", b"x"))
    batches = [
        make_batch({f"{i:02d}": [1, 2, 3]}, features={"label": Feature(kind, (value,))})
        for i, (kind, value) in enumerate(kinds * 20)
    ]
    staged = stage(tmp_path, *batches, formats=("parquet",))
    assert [pq.read_table(shard.path)["key"].to_pylist() for shard in staged] == [
        [f"{i:02d}" for i in range(start, 40, 2)] for start in range(2)
    ]


def test_however_many_types_there_are_few_files_are_open_and_no_row_is_lost(tmp_path):
    values = {"int64": 1, "bytes": b"x", "float": 0.5}
    pairs = [(one, other) for one in values for other in values] * 3
    batches = [
        make_batch({str(i): [1, 2, 3]}, features={n: Feature(k, (values[k],)) for n, k in zip("ab", pair, strict=True)})
        for i, pair in enumerate(pairs)
    ]
    staged = stage(tmp_path, *batches, formats=("parquet",))
    keys = [key for shard in staged for key in pq.read_table(shard.path)["key"].to_pylist()]
    assert sorted(keys, key=int) == [str(i) for i in range(len(pairs))]
    assert [shard.rows for shard in staged] == [1] * len(staged)


def test_parquet_rows_are_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 4)
    (shard,) = stage(
        tmp_path, *(make_batch({f"{i}{j}": [1, 2, 3] for j in range(3)}) for i in range(4)), formats=("parquet",)
    )
    metadata = pq.read_metadata(shard.path)
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(sizes) == 12
    assert max(sizes) <= 4


def test_a_full_file_is_closed_and_the_next_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100)
    staged = stage(tmp_path, *(make_batch({str(i): [i, 2, 3]}) for i in range(6)))
    assert len(staged) > 1
    assert [row["key"] for shard in staged for row in rows_of(shard)] == [str(i).encode() for i in range(6)]


def test_failures_and_records_are_counted_by_reason_and_file(tmp_path):
    batch = make_batch(
        {"a": [1, 2, 3], "b": [1, 2, 3]},
        [
            make_failure("x", source="/in/a.tfrecord@90"),
            make_failure("y", source="/in/a.tfrecord@95-99", reason="corrupt_record"),
            make_failure("z", source="/in/b.tfrecord", reason="read_error"),
        ],
        source="/in/a.tfrecord@5",
    )
    rows, failures = stage(tmp_path, batch)
    assert rows.inputs == (("/in/a.tfrecord", 2),)
    assert failures.inputs == (("/in/a.tfrecord", 2), ("/in/b.tfrecord", 1))
    assert failures.reasons == (("corrupt_record", 1), ("read_error", 1), ("truncated", 1))


@pytest.mark.parametrize("formats", [("tfrecord",), ("parquet", "tfrecord")])
def test_zero_and_duplicate_vectors_are_counted_once(tmp_path, formats):
    vectors = {"a": [0, 0, 0], "b": [1, 2, 3], "c": [1, 2, 3], "d": [0, 0, 0], "e": [-0.0, 0, 0], "f": [1, 2, 4]}
    staged = stage(tmp_path, make_batch(vectors), make_batch({"g": [1, 2, 3]}), formats=formats)
    assert sum(shard.zero_vectors for shard in staged) == 3
    assert sum(shard.duplicate_vectors for shard in staged) == 3


def test_nothing_makes_no_files(tmp_path):
    assert stage(tmp_path, make_batch({})) == []
    assert not (tmp_path / "staging").exists()


def test_what_was_abandoned_stays_staged(tmp_path):
    wave_format = WaveFormat(("tfrecord", "parquet"), "gzip", datetime.datetime.now(datetime.UTC), b"{}")
    writer = WaveWriter(str(tmp_path), "00000", wave_format)
    writer.add(make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
    writer.abandon()
    assert writer.close() == []
    assert len(list((tmp_path / "staging/00000").iterdir())) == 3
    assert not (tmp_path / "embeddings").exists()


def test_a_damaged_file_is_not_read_as_rows(tmp_path):
    for formats in (("tfrecord",), ("parquet",)):
        (shard,) = stage(tmp_path, make_batch({"a": [1, 2, 3]}), formats=formats)
        data = read_bytes(shard)
        filesystem.write_atomically(shard.path, data[:-7] + b"damaged")
        with pytest.raises(OutputError, match=r"cannot be read: .*; run python -m pipeline\.verify"):
            rows_of(shard)
