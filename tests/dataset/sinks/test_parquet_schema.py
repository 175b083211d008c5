import datetime

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.records import ColumnValue, Feature
from pipeline.dataset.reader import read_embeddings
from pipeline.dataset.sinks import files, parquet
from pipeline.dataset.sinks.parquet_schema import common_schema, to_schema
from tests.datasets import add_wave, complete, make_batch

LIST = pa.list_(pa.int64())
WHEN = datetime.datetime(2024, 5, 1)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ((pa.int16(), pa.int64()), pa.int64()),
        ((pa.int64(), pa.float32()), pa.float64()),
        ((LIST, pa.list_(pa.float32())), pa.list_(pa.float64())),
        ((LIST, pa.list_(pa.binary())), pa.list_(pa.binary())),
        ((pa.string(), pa.binary()), pa.binary()),
        ((pa.string(), pa.int64()), pa.string()),
        ((pa.int64(), LIST), LIST),
        ((pa.string(), LIST), pa.list_(pa.string())),
        ((pa.timestamp("us"), pa.int64()), pa.string()),
        ((pa.null(), pa.int64()), pa.int64()),
    ],
)
def test_the_type_that_holds_all_values(types, expected):
    schemas = [pa.schema([("key", pa.string()), ("embedding", LIST), ("x", kind)]) for kind in types]
    for order in (schemas, schemas[::-1]):
        assert common_schema(order).field("x").type == expected


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        (pa.array([1, None]), pa.float64(), [1.0, None]),
        (pa.array([1, None]), LIST, [[1], None]),
        (pa.array([[1, 2], None, []]), pa.list_(pa.binary()), [[b"1", b"2"], None, []]),
        (pa.array([[9], [1, 2], None])[1:], pa.list_(pa.float64()), [[1.0, 2.0], None]),
        (pa.array(["a", None]), pa.binary(), [b"a", None]),
        (pa.array([WHEN], pa.timestamp("s")), pa.string(), ["2024-05-01 00:00:00"]),
        (pa.array([1.5, None], pa.float32()), pa.list_(pa.binary()), [[b"1.5"], None]),
    ],
)
def test_values_in_another_type(values, target, expected):
    rows = to_schema(pa.record_batch([values], ["x"]), pa.schema([("x", target), ("y", pa.int8())]))
    assert rows.to_pydict() == {"x": expected, "y": [None] * len(expected)}


def test_the_files_of_a_wave_have_one_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr(files, "MAX_OPEN_FILES", 2)
    batches = [
        make_batch({"a": [1, 2, 3]}),
        make_batch({"b": [4, 5, 6]}, features={"label": Feature("int64", (3,))}),
        make_batch({"c": [7, 8, 9]}, features={"label": Feature("bytes", (b"x",)), "n": ColumnValue(pa.int8(), 1)}),
        make_batch({"d": [1, 1, 1]}, features={"n": ColumnValue(pa.float32(), 0.5)}),
    ]
    manifest = add_wave(tmp_path, "00000", *batches, formats=("parquet",))
    assert len(manifest.outputs) > 1
    paths = [tmp_path / item.path for item in manifest.outputs]
    schemas = [pq.read_schema(path) for path in paths]
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert b"spec.json" in schemas[0].metadata
    frame = pandas.read_parquet(tmp_path / "embeddings").set_index("key")
    np.testing.assert_array_equal(np.stack(frame["embedding"].loc[["a", "b"]]), [[1, 2, 3], [4, 5, 6]])
    assert [None if value is None else list(value) for value in frame["label"].loc[list("abcd")]] == [
        None,
        [b"3"],
        [b"x"],
        None,
    ]
    assert frame["n"].loc[["c", "d"]].tolist() == [1.0, 0.5]
    assert complete(tmp_path)
    assert sum(rows.num_rows for rows in read_embeddings(tmp_path)) == 4


def test_files_that_agree_are_not_rewritten(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "common_schema", None)
    batches = [make_batch({key: [1, 2, 3]}, features={"n": Feature("int64", (3,))}) for key in "ab"]
    add_wave(tmp_path, "00000", *batches, formats=("parquet",))
