import datetime
import itertools
import math
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.core.quiet import import_tensorflow
from pipeline.core.records import ColumnValue, Feature, ImageRecord
from pipeline.testing import make_example
from pipeline.tfrecords.examples import (
    decode_features,
    decode_rows,
    embedding_rows,
    encode_example,
    encode_rows,
    parse_example,
)

WHERE = {"address": "dir/a.tfrecord@12", "source": "/data/dir/a.tfrecord@12", "image_feature": "image/encoded"}


def parse(data, **options):
    return parse_example(data, **{**WHERE, **options})


def float32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


# Names without NUL, at which Arrow's C interface ends them.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
copied_names = names.filter(lambda name: name not in ("key", "embedding"))
features = st.one_of(
    st.builds(Feature, st.just("bytes"), st.lists(st.binary(max_size=8), max_size=3).map(tuple)),
    st.builds(Feature, st.just("float"), st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(tuple)),
    st.builds(Feature, st.just("int64"), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple)),
)


@pytest.fixture(scope="module")
def tf_example():
    """TensorFlow's own class."""
    import_tensorflow()
    from tensorflow.core.example.example_pb2 import Example

    return Example


class TestParse:
    def test_a_record(self):
        record = parse(make_example({"image/encoded": b"jpeg", "label": 3}))
        assert record == ImageRecord(b"dir/a.tfrecord@12", "/data/dir/a.tfrecord@12", b"jpeg", {})

    def test_an_address_that_is_not_utf_8(self):
        address = b"caf\xe9@0".decode("utf-8", "surrogateescape")
        assert parse(make_example({"image/encoded": b""}), address=address).key == b"caf\xe9@0"

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            (b"id", b"id"),
            ("é", "é".encode()),
            (b"\xff\0\n", b"\xff\0\n"),
            (b"", b""),
            (42, b"42"),
            (-(2**63), b"-9223372036854775808"),
        ],
    )
    def test_keys_from_a_feature(self, value, key):
        assert parse(make_example({"image/encoded": b"i", "id": value}), key_feature="id").key == key

    @pytest.mark.parametrize(
        ("values", "options", "reason", "message"),
        [
            ({}, {}, "missing_feature", "no image: the record has no feature 'image/encoded'"),
            (
                {"image/encoded": b"i"},
                {"image_feature": "x"},
                "missing_feature",
                "no image: the record has no feature 'x'",
            ),
            (
                {"image/encoded": 5},
                {},
                "missing_feature",
                "no image: feature 'image/encoded' holds int64 values where bytes was expected",
            ),
            (
                {"image/encoded": 0.5},
                {},
                "missing_feature",
                "no image: feature 'image/encoded' holds float values where bytes was expected",
            ),
            (
                {"image/encoded": [b"a", b"b"]},
                {},
                "missing_feature",
                "no image: feature 'image/encoded' holds 2 values where one was expected",
            ),
            (
                {"image/encoded": []},
                {},
                "missing_feature",
                "no image: feature 'image/encoded' holds 0 values where one was expected",
            ),
            (
                {"image/encoded": b"i"},
                {"key_feature": "id"},
                "missing_feature",
                "no key: the record has no feature 'id'",
            ),
            (
                {"image/encoded": b"i", "id": 0.5},
                {"key_feature": "id"},
                "missing_feature",
                "no key: feature 'id' holds float values where bytes or int64 was expected",
            ),
            (
                {"image/encoded": b"i", "id": [1, 2]},
                {"key_feature": "id"},
                "missing_feature",
                "no key: feature 'id' holds 2 values where one was expected",
            ),
        ],
    )
    def test_failures(self, values, options, reason, message):
        expected = Failure(b"dir/a.tfrecord@12", "/data/dir/a.tfrecord@12", "read", reason, message)
        assert parse(make_example(values), **options) == expected

    def test_a_feature_without_a_list(self):
        data = bytes.fromhex("0a130a110a0d") + b"image/encoded" + bytes.fromhex("1200")
        assert parse(data).message == "no image: feature 'image/encoded' is empty"

    def test_a_failure_without_image_has_the_key_that_was_read(self):
        failure = parse(make_example({"id": b"me"}), key_feature="id")
        assert (failure.key, failure.source, failure.reason) == (b"me", WHERE["source"], "missing_feature")

    def test_bytes_that_are_no_example(self):
        failure = parse(b"\xff\xff")
        assert (failure.stage, failure.reason) == ("read", "corrupt_record")
        assert failure.message == "2 bytes arrived that are not a tf.train.Example"

    @given(st.binary(max_size=60))
    @settings(deadline=None, max_examples=200)
    def test_any_bytes_make_a_record_or_a_failure(self, data):
        assert isinstance(parse(data, key_feature="k", passthrough=["*"]), ImageRecord | Failure)

    def test_no_bytes_are_an_example_without_features(self):
        assert parse(b"").reason == "missing_feature"


class TestPassthrough:
    DATA = make_example({"image/encoded": b"i", "b": [1, 2], "a": 0.5, "key": b"k", "embedding": [0.5], "none": []})

    def test_nothing_unless_asked(self):
        assert parse(self.DATA).features == {}

    def test_named_features_in_the_order_of_their_names_given(self):
        copied = parse(self.DATA, passthrough=["b", "absent", "a"]).features
        assert copied == {"b": Feature("int64", (1, 2)), "a": Feature("float", (0.5,))}
        assert list(copied) == ["b", "a"]

    def test_all_but_the_image_and_what_every_row_has(self):
        copied = parse(self.DATA, passthrough=["*"]).features
        assert list(copied) == ["a", "b", "none"]
        assert copied["none"] == Feature("bytes", ())

    def test_the_image_is_never_copied(self):
        assert parse(self.DATA, passthrough=["image/encoded", "key", "embedding"]).features == {}

    @given(st.dictionaries(copied_names.filter(lambda name: name != "image/encoded"), features, max_size=4))
    @settings(deadline=None)
    def test_all_values_come_back(self, given_features):
        image = {"image/encoded": Feature("bytes", (b"i",))}
        assert parse(encode_example({**given_features, **image}), passthrough=["*"]).features == given_features


class TestEncode:
    def test_golden_bytes(self):
        data = encode_example(
            {"b": Feature("bytes", (b"\xff", b"")), "a": Feature("int64", (1, -1)), "c": Feature("float", (0.5,))}
        )
        assert data.hex() == (
            "0a33"
            "0a140a0161120f1a0d0a0b01ffffffffffffffffff01"  # a: varints 1 and -1
            "0a0c0a016212070a050a01ff0a00"  # b: ff and nothing
            "0a0d0a0163120812060a040000003f"  # c: 0.5
        )

    @given(st.dictionaries(names, features, max_size=4), st.randoms())
    @settings(deadline=None)
    def test_the_order_of_the_features_does_not_show(self, given_features, random):
        items = list(given_features.items())
        random.shuffle(items)
        assert encode_example(dict(items)) == encode_example(given_features)


class TestAgainstTensorFlow:
    @given(values=st.dictionaries(names, features, max_size=4))
    @settings(deadline=None)
    def test_it_reads_what_we_write_and_we_what_it_writes(self, tf_example, values):
        theirs = tf_example()
        for name, feature in values.items():
            getattr(theirs.features.feature[name], f"{feature.kind}_list").value.extend(feature.values)
            getattr(theirs.features.feature[name], f"{feature.kind}_list").SetInParent()
        ours = encode_example(values)
        assert tf_example.FromString(ours) == theirs
        read = parse_example(
            theirs.SerializeToString(), address="", source="", image_feature="\0", passthrough=list(values) or ["*"]
        )
        assert isinstance(read, Failure)
        theirs.features.feature["\0"].bytes_list.value.append(b"i")
        read = parse_example(
            theirs.SerializeToString(), address="", source="", image_feature="\0", passthrough=list(values)
        )
        assert read.features == {k: v for k, v in values.items() if k not in ("key", "embedding")}

    @given(rows=st.dictionaries(copied_names, features, max_size=3), vector=st.lists(st.floats(width=32), min_size=1))
    @settings(deadline=None)
    def test_rows_are_examples(self, tf_example, rows, vector):
        record = ImageRecord(b"\xff", "s", b"", rows)
        (batch,) = embedding_rows([record], np.array([vector], np.float32))
        (data,) = encode_rows(batch)
        found = tf_example.FromString(data).features.feature
        assert set(found) == {"key", "embedding", *rows}
        assert list(found["key"].bytes_list.value) == [b"\xff"]
        assert np.array_equal(found["embedding"].float_list.value, vector, equal_nan=True)
        for name, feature in rows.items():
            assert found[name].WhichOneof("kind") == f"{feature.kind}_list"
            assert tuple(getattr(found[name], f"{feature.kind}_list").value) == feature.values


schemas = st.sampled_from([{}, {"a": "bytes"}, {"a": "int64", "b": "float"}, {"b": "float"}])
values_of = {
    "bytes": st.lists(st.binary(max_size=4), max_size=2),
    "int64": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    "float": st.lists(st.floats(width=32, allow_nan=False), max_size=2),
}


@st.composite
def mixed_records(draw):
    records = []
    for schema in draw(st.lists(schemas, max_size=8)):
        copied = {name: Feature(kind, tuple(draw(values_of[kind]))) for name, kind in schema.items()}
        records.append(ImageRecord(draw(st.binary(max_size=4)), "s", b"", copied))
    return records


def as_tuples(batches):
    """Rows as plain values: key, vector, and the copied features with their Arrow types."""
    rows = []
    for batch in batches:
        types = {field.name: field.type.value_type for field in batch.schema if field.name != "key"}
        for row in batch.to_pylist():
            rows.append(
                (row.pop("key"), tuple(row.pop("embedding")), {k: (types[k], tuple(v)) for k, v in row.items()})
            )
    return rows


ARROW = {"bytes": pa.binary(), "int64": pa.int64(), "float": pa.float32()}


class TestRows:
    @given(mixed_records(), st.integers(1, 5))
    @settings(deadline=None)
    def test_rows_hold_the_records_in_their_order(self, records, dimension):
        vectors = np.arange(len(records) * dimension, dtype=np.float32).reshape(len(records), dimension)
        expected = [
            (r.key, tuple(v.tolist()), {n: (ARROW[f.kind], f.values) for n, f in r.features.items()})
            for r, v in zip(records, vectors, strict=True)
        ]
        batches = embedding_rows(records, vectors)
        assert as_tuples(batches) == expected
        encoded = [data for batch in batches for data in encode_rows(batch)]
        assert as_tuples(decode_rows(encoded)) == expected

    @given(mixed_records())
    @settings(deadline=None)
    def test_neighbours_with_the_same_features_share_a_batch(self, records):
        batches = embedding_rows(records, np.zeros((len(records), 2), np.float32))
        for left, right in itertools.pairwise(batches):
            assert left.schema != right.schema
        assert all(batch.num_rows for batch in batches)

    def test_schema(self):
        record = ImageRecord(b"k", "s", b"", {"n": Feature("int64", (1,))})
        (batch,) = embedding_rows([record], np.zeros((1, 3), np.float64))
        assert batch.schema.field("key").type == pa.binary()
        assert batch.schema.field("embedding").type == pa.list_(pa.float32(), 3)
        assert batch.schema.field("n").type == pa.list_(pa.int64())

    def test_a_slice_encodes_its_own_rows(self):
        records = [ImageRecord(bytes([i]), "s", b"", {"n": Feature("int64", (i,))}) for i in range(4)]
        (batch,) = embedding_rows(records, np.arange(8, dtype=np.float32).reshape(4, 2))
        assert as_tuples(decode_rows(encode_rows(batch.slice(1, 2)))) == as_tuples([batch])[1:3]

    def test_vectors_that_are_not_contiguous(self):
        vectors = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2]
        (batch,) = embedding_rows([ImageRecord(b"a", "", b""), ImageRecord(b"b", "", b"")], vectors)
        assert batch.column("embedding").to_pylist() == [[0, 2, 4], [6, 8, 10]]

    def test_special_values_survive(self):
        special = np.array([[math.nan, math.inf, -math.inf, -0.0, float32(1e-45)]], np.float32)
        (batch,) = decode_rows(encode_rows(embedding_rows([ImageRecord(b"a", "", b"")], special)[0]))
        assert batch.column("embedding").flatten().to_numpy().tobytes() == special.tobytes()

    @pytest.mark.parametrize(
        "values",
        [
            {"key": b"k"},
            {"embedding": [0.5]},
            {"key": [b"a", b"b"], "embedding": [0.5]},
            {"key": b"k", "embedding": b"x"},
            {"key": 3, "embedding": [0.5]},
            {},
        ],
    )
    def test_other_examples_are_no_rows(self, values):
        with pytest.raises(ValueError, match=r"^a record has no key or no embedding$"):
            decode_rows([make_example(values)])

    def test_other_bytes_are_no_rows(self):
        with pytest.raises(ValueError, match=r"^a record's 1 bytes are not a tf.train.Example$"):
            decode_rows([b"\xff"])

    def test_vectors_of_different_lengths_are_no_rows(self):
        rows = [make_example({"key": b"k", "embedding": [0.5] * length}) for length in (2, 3)]
        with pytest.raises(ValueError, match="same shape"):
            decode_rows(rows)

    def test_nothing(self):
        assert embedding_rows([], np.empty((0, 4), np.float32)) == ()
        assert decode_rows([]) == ()


class TestColumns:
    """Columns with types of their own, as a Parquet input has."""

    @pytest.mark.parametrize(
        ("kind", "value", "feature"),
        [
            (pa.int8(), -3, Feature("int64", (-3,))),
            (pa.uint64(), 1 << 40, Feature("int64", (1 << 40,))),
            (pa.bool_(), True, Feature("int64", (1,))),
            (pa.float64(), 0.5, Feature("float", (0.5,))),
            (pa.string(), "é", Feature("bytes", ("é".encode(),))),
            (pa.large_string(), "é", Feature("bytes", ("é".encode(),))),
            (pa.large_binary(), b"\xff", Feature("bytes", (b"\xff",))),
            (pa.list_(pa.int16()), [1, 2], Feature("int64", (1, 2))),
            (pa.large_list(pa.string()), ["a", "b"], Feature("bytes", (b"a", b"b"))),
            (pa.list_(pa.float32(), 2), [1.0, 2.0], Feature("float", (1.0, 2.0))),
        ],
        ids=str,
    )
    def test_values_in_an_example(self, kind, value, feature):
        records = [
            ImageRecord(bytes([index]), "", b"", {"x": ColumnValue(kind, item)})
            for index, item in enumerate((value, None, value))
        ]
        (batch,) = embedding_rows(records, np.zeros((3, 2), np.float32))
        assert batch.schema.field("x").type == kind
        found = [decode_features(data).get("x") for data in encode_rows(batch)]
        assert found == [feature, None, feature]
        assert [decode_features(data).get("x") for data in encode_rows(batch.slice(2))] == [feature]

    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [
            (
                pa.timestamp("us"),
                datetime.datetime(2024, 1, 1),
                r"'x', whose type timestamp\[us\] a TFRecord cannot hold",
            ),
            (pa.struct([("a", pa.int64())]), {"a": 1}, r"'x', whose type struct<a: int64> a TFRecord cannot hold"),
            (pa.list_(pa.list_(pa.int64())), [[1]], r"'x', whose type list<.*> a TFRecord cannot hold"),
            (pa.uint64(), 1 << 63, r"'x', which has a value that a TFRecord cannot hold \(.*\)"),
        ],
    )
    def test_values_that_an_example_cannot_hold(self, kind, value, text):
        record = ImageRecord(b"k", "", b"", {"x": ColumnValue(kind, value)})
        (batch,) = embedding_rows([record], np.zeros((1, 2), np.float32))
        advice = "; leave it out, or write --output_format=parquet$"
        with pytest.raises(UsageError, match=f"^--passthrough copies {text}{advice}"):
            encode_rows(batch)


def test_all_features_of_an_example():
    data = make_example({"key": "k", "image/encoded": b"x", "n": [1, 2], "f": 0.5, "none": []})
    assert decode_features(data) == {
        "key": Feature("bytes", (b"k",)),
        "image/encoded": Feature("bytes", (b"x",)),
        "n": Feature("int64", (1, 2)),
        "f": Feature("float", (0.5,)),
        "none": Feature("bytes", ()),
    }
    assert decode_features(b"\xff" * 10) == {}
