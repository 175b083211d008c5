import datetime
import decimal

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
        ((pa.null(), pa.struct([("a", pa.int64())])), pa.struct([("a", pa.int64())])),
        ((pa.int64(), pa.decimal128(5, 2)), pa.string()),
        ((pa.uint64(), pa.int64()), pa.string()),
        ((pa.uint64(), pa.uint8()), pa.uint64()),
        ((pa.decimal128(5, 2), pa.decimal128(38, 10)), pa.decimal128(38, 10)),
        ((pa.struct([("a", pa.int64())]), pa.struct([("a", pa.string())])), pa.string()),
        ((pa.binary(), pa.large_binary()), pa.large_binary()),
        ((pa.binary(3), pa.binary(4)), pa.binary()),
        ((pa.large_binary(), pa.int64()), pa.large_binary()),
        ((pa.string(), pa.large_string()), pa.large_string()),
        ((pa.dictionary(pa.int8(), pa.string()), pa.int64()), pa.string()),
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


STRUCT = pa.struct([("a", pa.int64())])
MAP = pa.map_(pa.string(), pa.int64())
VALUES = [
    pa.array([1, None, -(1 << 62)]),
    pa.array([(1 << 64) - 1, None], pa.uint64()),
    pa.array([decimal.Decimal("1.25"), None], pa.decimal128(5, 2)),
    pa.array([0.5, None]),
    pa.array([True, None]),
    pa.array(["é", None]),
    pa.array(["é", None], pa.large_string()),
    pa.array(["é", None], pa.string_view()),
    pa.array(["é", None]).dictionary_encode(),
    pa.array([b"\xff", None]),
    pa.array([b"\xff", None], pa.large_binary()),
    pa.array([b"\xff", None], pa.binary_view()),
    pa.array([b"\xff\xfe", None], pa.binary(2)),
    pa.array([b"\xff", None]).dictionary_encode(),
    pa.array([{"a": 1}, None], STRUCT),
    pa.array([{"b": b"\xff"}, None]),
    pa.array([[("a", 1)], None], MAP),
    pa.array([[{"a": 1}], None], pa.list_(STRUCT)),
    pa.array([[1.5], None]),
    pa.array([["é", None], None], pa.list_(pa.string_view())),
    pa.array([WHEN, None]),
    pa.array([WHEN.date(), None]),
    pa.array([None], pa.null()),
]


@pytest.mark.parametrize("first", VALUES, ids=lambda column: str(column.type))
def test_any_two_types_have_one_that_holds_their_values(first):
    for second in VALUES:
        kinds = [pa.schema([("key", pa.string()), ("embedding", LIST), ("x", item.type)]) for item in (first, second)]
        schema = pa.schema([common_schema(kinds).field("x")])
        for column in (first, second):
            rows = to_schema(pa.record_batch([column], ["x"]), schema)
            rows.validate(full=True)
            assert rows.column("x").is_valid().to_pylist() == column.is_valid().to_pylist(), second.type


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        (pa.array([{"a": 1, "b": [WHEN]}, None]), pa.string(), ['{"a": 1, "b": ["2024-05-01 00:00:00"]}', None]),
        (pa.array([{"a": b"x\xff"}]), pa.binary(), [rb'{"a": "x\\xff"}']),
        (pa.array([[("a", 1)], None], MAP), pa.string(), ['[["a", 1]]', None]),
        (pa.array([[{"a": 1}, None], None], pa.list_(STRUCT)), pa.list_(pa.string()), [['{"a": 1}', None], None]),
        (pa.array([(1 << 64) - 1], pa.uint64()), pa.string(), ["18446744073709551615"]),
    ],
)
def test_values_as_text(values, target, expected):
    rows = to_schema(pa.record_batch([values], ["x"]), pa.schema([("x", target)]))
    assert rows.to_pydict() == {"x": expected}


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
