import datetime
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.json import to_json
from pipeline.core.records import Feature
from pipeline.dataset.sinks import parquet
from tests.dataset.sinks.shards import rows_of
from tests.datasets import SPEC, make_batch, stage_shards


@settings(deadline=None, max_examples=30)
@given(keys=st.lists(st.binary(max_size=20), min_size=1, max_size=5, unique=True))
def test_keys_in_parquet_are_text_and_the_bytes_that_are_none_are_escaped(tmp_path_factory, keys):
    (shard,) = stage_shards(
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
    before = datetime.datetime.now(datetime.UTC)
    (shard,) = stage_shards(tmp_path, batch, formats=("parquet",))
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
    assert json.loads(file.metadata.metadata[b"spec.json"]) == json.loads(to_json(SPEC))
    assert {file.metadata.row_group(0).column(i).compression for i in range(6)} == {"ZSTD"}
    written, again = file.read()["event_timestamp"].to_pylist()
    assert written == again
    assert before <= written <= datetime.datetime.now(datetime.UTC)
    assert file.read()["label"].to_pylist() == [[3], [3]]


def test_parquet_is_for_pandas(tmp_path):
    (shard,) = stage_shards(tmp_path, make_batch({"a": [1, 2, 3], "b": [4, 5, 6]}), formats=("parquet",))
    frame = pandas.read_parquet(shard.path)
    assert frame["key"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(np.stack(frame["embedding"]), [[1, 2, 3], [4, 5, 6]])
    assert str(frame["event_timestamp"].dtype) == "datetime64[us, UTC]"


def test_parquet_has_nulls_for_features_that_a_row_lacks(tmp_path):
    with_label = make_batch({"a": [1, 2, 3]}, features={"label": Feature("int64", (3,))})
    without = make_batch({"b": [1, 2, 3]})
    (shard,) = stage_shards(tmp_path, without, with_label, without, formats=("parquet",))
    assert pq.read_table(shard.path)["label"].to_pylist() == [None, [3], None]


def test_parquet_begins_a_file_where_the_columns_change(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1)
    batches = [
        make_batch({"a": [1, 2, 3]}),
        make_batch({"b": [1, 2, 3]}, features={"label": Feature("int64", (3,))}),
        make_batch({"c": [1, 2, 3]}, features={"label": Feature("bytes", (b"x",))}),
        make_batch({"d": [1, 2, 3]}),
    ]
    staged = stage_shards(tmp_path, *batches, formats=("tfrecord", "parquet"))
    found = [shard for shard in staged if shard.format == "parquet"]
    assert [pq.read_table(shard.path)["key"].to_pylist() for shard in found] == [["a", "d"], ["b"], ["c"]]
    (tfrecord,) = [shard for shard in staged if shard.format == "tfrecord"]
    assert [row["key"] for row in rows_of(tfrecord)] == [b"a", b"b", b"c", b"d"]


def test_parquet_has_a_file_for_each_type_that_a_feature_has(tmp_path):
    kinds = (("int64", 1), ("bytes", b"x"))
    batches = [
        make_batch({f"{i:02d}": [1, 2, 3]}, features={"label": Feature(kind, (value,))})
        for i, (kind, value) in enumerate(kinds * 20)
    ]
    staged = stage_shards(tmp_path, *batches, formats=("parquet",))
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
    staged = stage_shards(tmp_path, *batches, formats=("parquet",))
    keys = [key for shard in staged for key in pq.read_table(shard.path)["key"].to_pylist()]
    assert sorted(keys, key=int) == [str(i) for i in range(len(pairs))]
    assert [shard.rows for shard in staged] == [1] * len(staged)


def test_parquet_rows_are_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 4)
    (shard,) = stage_shards(
        tmp_path, *(make_batch({f"{i}{j}": [1, 2, 3] for j in range(3)}) for i in range(4)), formats=("parquet",)
    )
    metadata = pq.read_metadata(shard.path)
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(sizes) == 12
    assert max(sizes) <= 4
