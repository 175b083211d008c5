import dataclasses
import datetime

import pyarrow as pa
import pytest

from pipeline import read_table
from pipeline.core.errors import OutputError, UsageError
from pipeline.core.json import to_json
from pipeline.core.records import ColumnValue, Feature
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.ownership import write_manifest
from tests.datasets import SPEC, add_wave, entry, make_batch, make_failure, unlocked

EVERY = pytest.mark.parametrize("formats", [("tfrecord",), ("parquet",), ("tfrecord", "parquet")], ids=",".join)
TIME = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32(), 3)


def rows(output, **options):
    """The rows of a table by key, without their times."""
    table = read_table(str(output), **options).read_all()
    found = {row["key"]: row for row in table.to_pylist()}
    assert len(found) == len(table)
    for row in found.values():
        del row["key"], row["event_timestamp"]
    return found


def forget_columns(output):
    """Makes the waves those of an earlier version, whose manifests do not hold their columns."""
    for manifest in read_manifests(str(output)):
        assert manifest.columns is not None
        write_manifest(unlocked(output), dataclasses.replace(manifest, columns=None))


def name(text):
    return dataclasses.replace(entry(text), keys="name")


@EVERY
@pytest.mark.parametrize("is_old", [False, True], ids=["noted", "looked"])
def test_one_schema_for_all_waves(tmp_path, formats, is_old):
    first = {
        "label": Feature("int64", (3,)),
        "name": Feature("bytes", ("ü".encode(),)),
        "raw": Feature("bytes", (b"\xff",)),
        "box": Feature("float", (0.5,)),
    }
    second = {
        "box": Feature("float", (0.5, 0.25)),
        "name": Feature("bytes", ()),
        "tags": Feature("bytes", (b"a", b"b")),
    }
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=first), inputs=[entry("a")], formats=formats)
    batches = make_batch({"b": [4, 5, 6]}, features=second), make_batch({"c": [7, 8, 9]})
    add_wave(tmp_path, "00001", *batches, inputs=[entry("b"), entry("c")], formats=formats)
    if is_old:
        forget_columns(tmp_path)
    reader = read_table(tmp_path)
    assert isinstance(reader, pa.RecordBatchReader)
    expected = [
        ("key", pa.string()),
        ("embedding", VECTOR),
        ("box", pa.list_(pa.float32())),
        ("label", pa.int64()),
        ("name", pa.string()),
        ("raw", pa.binary()),
        ("tags", pa.list_(pa.string())),
        ("event_timestamp", TIME),
    ]
    assert reader.schema.equals(pa.schema(expected, {"spec.json": to_json(SPEC)}), check_metadata=True)
    assert rows(tmp_path) == {
        "a": {"embedding": [1, 2, 3], "box": [0.5], "label": 3, "name": "ü", "raw": b"\xff", "tags": None},
        "b": {"embedding": [4, 5, 6], "box": [0.5, 0.25], "label": None, "name": None, "raw": None, "tags": ["a", "b"]},
        "c": {"embedding": [7, 8, 9], "box": None, "label": None, "name": None, "raw": None, "tags": None},
    }


def test_a_feature_whose_type_differs_between_waves(tmp_path):
    values = [Feature("int64", (1,)), Feature("float", (0.5,)), Feature("bytes", (b"x",))]
    for index, value in enumerate(values):
        add_wave(tmp_path, f"{index:05d}", make_batch({f"{index}": [1, 2, 3]}, features={"f": value}))
    assert {key: row["f"] for key, row in rows(tmp_path).items()} == {"0": "1", "1": "0.5", "2": "x"}


@EVERY
def test_columns_with_types_keep_them_where_the_format_can(tmp_path, formats):
    features = {
        "small": ColumnValue(pa.int32(), 5),
        "flag": ColumnValue(pa.bool_(), True),
        "text": ColumnValue(pa.large_string(), "x"),
        "code": ColumnValue(pa.dictionary(pa.int32(), pa.string()), "c") if "tfrecord" not in formats else None,
        "ids": ColumnValue(pa.list_(pa.int16()), [1, 2]),
    }
    features = {key: value for key, value in features.items() if value}
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=features), formats=formats)
    noted = read_table(tmp_path).schema
    if "parquet" in formats:
        wanted = [
            ("small", pa.int32()),
            ("flag", pa.bool_()),
            ("text", pa.large_string()),
            ("ids", pa.list_(pa.int16())),
        ]
    else:
        wanted = [("small", pa.int64()), ("flag", pa.int64()), ("text", pa.string()), ("ids", pa.list_(pa.int64()))]
    for column, kind in wanted:
        assert noted.field(column).type == kind
    if "code" in features:
        assert noted.field("code").type == pa.string()
    (row,) = rows(tmp_path).values()
    assert (row["small"], row["flag"], row["text"], row["ids"]) == (5, True, "x", [1, 2])
    forget_columns(tmp_path)
    assert read_table(tmp_path).schema == noted
    assert list(rows(tmp_path).values()) == [row]


@EVERY
def test_keys_outside_utf8(tmp_path, formats):
    add_wave(tmp_path, "00000", make_batch({b"\xffa": [1, 2, 3], "ü": [4, 5, 6]}), formats=formats)
    assert sorted(rows(tmp_path)) == [r"\xffa", "ü"]
    raw = rb"\xffa" if formats == ("parquet",) else b"\xffa"
    assert set(rows(tmp_path, keys="bytes")) == {raw, "ü".encode()}
    assert read_table(tmp_path, keys="bytes").schema.field("key").type == pa.binary()
    with pytest.raises(UsageError, match=r"^keys='text': expected one of string, bytes$"):
        read_table(tmp_path, keys="text")


@EVERY
def test_some_columns(tmp_path, formats):
    features = {"label": Feature("int64", (3,)), "label.x": Feature("int64", (4,))}
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=features), formats=formats)
    table = read_table(tmp_path, columns=["label", "key"]).read_all()
    assert table.schema.metadata == {b"spec.json": to_json(SPEC)}
    assert table.to_pylist() == [{"label": 3, "key": "a"}]
    assert read_table(tmp_path, columns=["label.x"]).read_all().to_pylist() == [{"label.x": 4}]
    with pytest.raises(UsageError, match=r"^columns: the data set has no 'x'; expected some of key, embedding, label,"):
        read_table(tmp_path, columns=["x"])


def test_only_the_wanted_columns_are_read_from_parquet(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=("tfrecord", "parquet"))
    for path in (tmp_path / "embeddings").glob("*.tfrecord"):
        path.unlink()  # Parquet is read where there are both
    assert list(rows(tmp_path)) == ["a"]


def test_the_newest_row_of_each_key(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "b": [1, 0, 0]}), inputs=[name("a"), name("b")])
    add_wave(tmp_path, "00001", make_batch({"b": [2, 0, 0]}, [make_failure("a")]), inputs=[name("a"), name("b")])
    assert rows(tmp_path) == {"b": {"embedding": [2, 0, 0]}}


def test_the_time_of_a_row_is_that_of_its_commit(tmp_path):
    before = datetime.datetime.now(datetime.UTC)
    add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}), formats=("parquet",))
    between = datetime.datetime.now(datetime.UTC)
    add_wave(tmp_path, "00001", make_batch({"b": [1, 0, 0]}), formats=("parquet",))
    after = datetime.datetime.now(datetime.UTC)
    times = {row["key"]: row["event_timestamp"] for row in read_table(tmp_path).read_all().to_pylist()}
    assert before <= times["a"] <= between <= times["b"] <= after


def test_a_damaged_file_is_an_error_of_one_line(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}), formats=("parquet",))
    (path,) = (tmp_path / "embeddings").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(OutputError, match=r"00001\.parquet cannot be read: .*; run python -m pipeline\.verify$"):
        read_table(tmp_path).read_all()


def test_rows_are_read_as_they_are_needed(tmp_path):
    for index in range(2):
        add_wave(tmp_path, f"{index:05d}", make_batch({f"{index}": [1, 2, 3]}), inputs=[entry(f"{index}")])
    reader = read_table(tmp_path)
    assert reader.read_next_batch().num_rows == 1  # of the newest wave
    for path in (tmp_path / "embeddings").glob("embeddings-00000-*"):
        path.unlink()
    with pytest.raises(OutputError, match="cannot be read"):
        reader.read_next_batch()


def test_no_rows_and_no_data_set(tmp_path):
    add_wave(tmp_path / "out", "00000", make_batch({}, [make_failure("a")]))
    table = read_table(tmp_path / "out").read_all()
    assert (table.num_rows, table.schema.names) == (0, ["key", "embedding", "event_timestamp"])
    with pytest.raises(OutputError, match=r"none holds no data set: it has no spec\.json"):
        read_table(tmp_path / "none")


class TestExistingOnly:
    def make(self, tmp_path, names, **options):
        """A data set of existing inputs in two folders, with the keys that an own run would give them."""
        inputs = []
        for text in names:
            path = tmp_path / "in" / text
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            inputs.append(dataclasses.replace(name(text), path=str(path), **options))
        return inputs

    def test_two_waves(self, tmp_path):
        """5 of 250 images change, 3 are new, 1 is gone, and 1 does not decode any more."""
        names = [f"{index % 2}/{index:03d}.jpg" for index in range(253)]
        inputs = self.make(tmp_path, names)
        add_wave(tmp_path, "00000", make_batch({text: [1, 0, 0] for text in names[:250]}), inputs=inputs[:250])
        broken = make_failure(names[10], source=inputs[10].path)
        new = make_batch({text: [2, 0, 0] for text in (*names[:5], *names[250:])}, [broken])
        add_wave(tmp_path, "00001", new, inputs=[*inputs[:5], inputs[10], *inputs[250:]])
        (tmp_path / "in" / names[20]).unlink()
        assert rows(tmp_path).keys() == {*names} - {names[10]}
        assert rows(tmp_path, existing_only=True).keys() == {*names} - {names[10], names[20]}
        assert len(rows(tmp_path, existing_only=True)) == 251

    def test_records_of_a_file(self, tmp_path):
        inputs = self.make(tmp_path, ["r", "s"], keys="offset")
        add_wave(tmp_path, "00000", make_batch({"r@0": [1, 0, 0], "r/x": [1, 0, 0], "s@0": [1, 0, 0]}), inputs=inputs)
        (tmp_path / "in/r").unlink()
        assert rows(tmp_path, existing_only=True).keys() == {"s@0"}

    def test_a_file_that_was_moved_and_embedded_again_is_not_gone(self, tmp_path):
        old, new = self.make(tmp_path, ["old/a", "new/a"])
        old, new = dataclasses.replace(old, name="a"), dataclasses.replace(new, name="a")
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}), inputs=[old])
        add_wave(tmp_path, "00001", make_batch({"a": [2, 0, 0]}), inputs=[new])
        (tmp_path / "in/old/a").unlink()
        assert rows(tmp_path, existing_only=True) == {"a": {"embedding": [2, 0, 0]}}

    def test_a_whole_folder_is_gone(self, tmp_path):
        inputs = self.make(tmp_path, ["x/a", "y/b"])
        add_wave(tmp_path, "00000", make_batch({"x/a": [1, 0, 0], "y/b": [1, 0, 0]}), inputs=inputs)
        (tmp_path / "in/x/a").unlink()
        (tmp_path / "in/x").rmdir()
        assert rows(tmp_path, existing_only=True).keys() == {"y/b"}

    def test_images_on_the_web_count_as_existing(self, tmp_path):
        (here,) = self.make(tmp_path, ["a"])
        web = dataclasses.replace(name("w"), path="https://host.test/w.jpg")
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0], "w": [1, 0, 0]}), inputs=[here, web])
        (tmp_path / "in/a").unlink()
        assert rows(tmp_path, existing_only=True).keys() == {"w"}

    def test_no_input_here_is_an_error(self, tmp_path):
        add_wave(tmp_path, "00000", make_batch({"a": [1, 0, 0]}), inputs=[name("a")])
        message = (
            rf"^existing_only: none of the 1 inputs of {tmp_path} exists, such as /in/a; read it where the inputs are, "
            "or without existing_only$"
        )
        with pytest.raises(OutputError, match=message):
            read_table(tmp_path, existing_only=True)

    def test_keys_from_a_feature_do_not_say_which_rows_are_of_a_gone_input(self, tmp_path):
        inputs = self.make(tmp_path, ["r", "s"], keys="feature")
        add_wave(tmp_path, "00000", make_batch({"k": [1, 0, 0]}), inputs=inputs, key_feature="id")
        assert rows(tmp_path, existing_only=True).keys() == {"k"}
        (tmp_path / "in/r").unlink()
        with pytest.raises(
            UsageError, match=r"^existing_only: 1 inputs of .* are gone, such as .*/in/r, but the keys "
        ):
            read_table(tmp_path, existing_only=True)
