import dataclasses
import datetime
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import ColumnValue, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs import parquet_files
from pipeline.inputs.base import ReadSettings, TaskPart
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import cut_task, find_kind, make_tasks
from pipeline.storage import filesystem
from pipeline.testing import jpeg_bytes, png_bytes
from tests.inputs.reading import breaking, check_split, make_task, read_between, read_until

ROWS = 20
IMAGES = [jpeg_bytes(seed=index) for index in range(ROWS)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hugging_face(images=IMAGES):
    return pa.array([{"bytes": image, "path": f"{index}.jpg"} for index, image in enumerate(images)], STRUCT)


def write(tmp_path, columns, *, ranges=None, row_group_size=7, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size, **options)
    return make_task(tmp_path / "a.parquet", "parquet", ranges=ranges)


class TestRows:
    @pytest.mark.parametrize(
        "column", [hugging_face(), pa.array(IMAGES, pa.binary()), pa.array(IMAGES, pa.large_binary())], ids=str
    )
    def test_each_row_is_a_record(self, tmp_path, column):
        found = read_between(write(tmp_path, {"label": pa.array(range(ROWS)), "picture": column}))
        assert found == [
            ImageRecord(f"a.parquet@{index}".encode(), f"{tmp_path}/a.parquet@{index}", image)
            for index, image in enumerate(IMAGES)
        ]

    def test_columns_keep_their_types(self, tmp_path):
        taken = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
        columns = {
            "image": hugging_face(IMAGES[:2]),
            "label": pa.array([3, None], pa.int16()),
            "score": pa.array([0.1, 2.5], pa.float64()),
            "caption": pa.array(["é", None]),
            "boxes": pa.array([[1.5], []], pa.list_(pa.float32())),
            "taken": pa.array([taken, taken], pa.timestamp("us", tz="UTC")),
            "key": pa.array(["x", "y"]),
            "embedding": pa.array([1, 2]),
            "event_timestamp": pa.array([1, 2]),
        }
        first, second = read_between(write(tmp_path, columns), passthrough=("*",))
        assert first.features == {
            "label": ColumnValue(pa.int16(), 3),
            "score": ColumnValue(pa.float64(), 0.1),
            "caption": ColumnValue(pa.string(), "é"),
            "boxes": ColumnValue(pa.list_(pa.field("element", pa.float32())), [1.5]),
            "taken": ColumnValue(pa.timestamp("us", tz="UTC"), taken),
        }
        assert second.features["label"] == ColumnValue(pa.int16(), None)
        (first, _) = read_between(write(tmp_path, columns), passthrough=("label", "nothing"))
        assert list(first.features) == ["label"]

    @pytest.mark.parametrize(
        ("values", "keys"),
        [
            (pa.array(["a", "é"]), [b"a", "é".encode()]),
            (pa.array([b"\xff", b" "]), [b"\xff", b" "]),
            (pa.array([7, -1], pa.int8()), [b"7", b"-1"]),
        ],
    )
    def test_keys_from_a_column(self, tmp_path, values, keys):
        found = read_between(write(tmp_path, {"image": hugging_face(IMAGES[:2]), "id": values}), key_feature="id")
        assert [item.key for item in found] == keys
        assert [item.source for item in found] == [f"{tmp_path}/a.parquet@0", f"{tmp_path}/a.parquet@1"]

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            (pa.array([None], pa.string()), "no key: column 'id' holds no value in this row"),
            (pa.array([""]), "no key: column 'id' is blank in this row"),
            (pa.array([b""]), "no key: column 'id' is blank in this row"),
            (pa.array([0.5]), "no key: column 'id' holds float in this row"),
            (pa.array([True]), "no key: column 'id' holds bool in this row"),
        ],
    )
    def test_rows_without_a_key(self, tmp_path, values, text):
        (failure,) = read_between(write(tmp_path, {"image": hugging_face(IMAGES[:1]), "id": values}), key_feature="id")
        assert failure == Failure(b"a.parquet@0", f"{tmp_path}/a.parquet@0", "read", "missing_feature", text)

    def test_rows_without_an_image(self, tmp_path):
        images = pa.array([None, {"bytes": None, "path": None}, {"bytes": b"", "path": None}], STRUCT)
        none, empty_struct, empty = read_between(write(tmp_path, {"image": images}))
        assert none.reason == empty_struct.reason == "missing_feature"
        assert none.message == "no image: column 'image' holds no value in this row"
        assert empty.image == b""  # decoding says that it is empty

    def test_large_images(self, tmp_path):
        large, good = read_between(write(tmp_path, {"image": [bytes(11), bytes(10)]}), max_image_bytes=10)
        assert (large.reason, good.image) == ("too_large", bytes(10))
        assert large.message == "the image has 11 bytes, more than the 10 that --max_image_bytes allows"


class TestPaths:
    def test_paths_where_there_are_no_bytes(self, tmp_path):
        (tmp_path / "d é").mkdir()
        (tmp_path / "d é/1.jpg").write_bytes(b"one")
        paths = ["d é/1.jpg", f"{tmp_path}/d é/1.jpg", f"file://{tmp_path}/d%20%C3%A9/1.jpg", "missing.jpg"]
        rows = [{"bytes": None, "path": path} for path in paths] + [{"bytes": b"two", "path": paths[0]}]
        task = write(tmp_path, {"image": pa.array(rows, STRUCT)})
        *found, missing, last = read_between(task)
        assert [item.image for item in found] == [b"one"] * 3
        assert last.image == b"two"
        assert (missing.key, missing.source) == (b"a.parquet@3", f"{tmp_path}/a.parquet@3-4")
        assert (missing.reason, missing.message) == ("read_error", "missing.jpg: No such file or directory")

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
    def test_a_column_of_paths(self, tmp_path, kind):
        (tmp_path / "1.jpg").write_bytes(b"one")
        task = write(tmp_path, {"file": pa.array(["1.jpg", "1.jpg"]).cast(kind), "id": ["a", "b"]})
        found = read_between(task, image_feature="file", key_feature="id")
        assert [(item.key, item.image) for item in found] == [(b"a", b"one"), (b"b", b"one")]


class TestColumn:
    """The column that holds the images."""

    def describe(self, tmp_path, columns, **options):
        task = write(tmp_path, columns)
        settings = ReadSettings(InputConfig(("unused",), **options))
        return find_kind("parquet").describe_mismatch(task.files[0], settings)

    def test_the_only_one_with_images(self, tmp_path):
        columns = {"mask": [b"x", b"y"], "image": [b"?", png_bytes()], "note": ["a", "b"]}
        assert self.describe(tmp_path, columns) == ""
        assert [item.image for item in read_between(write(tmp_path, columns))] == columns["image"]

    def test_the_one_that_hugging_face_declares(self, tmp_path):
        metadata = {"info": {"features": {"image": {"_type": "Image"}, "mask": {"_type": "Value"}}}}
        table = pa.table({"mask": hugging_face(), "image": hugging_face(IMAGES[::-1])})
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
        assert read_between(write(tmp_path, table))[0].image == IMAGES[-1]

    @pytest.mark.parametrize(
        ("columns", "options", "text"),
        [
            ({"a": IMAGES, "b": IMAGES}, {}, "holds images in a and b; say --image_feature=a"),
            ({"a": [b"x"], "b": [b"y"]}, {}, "has a, b, none of which holds images; say --image_feature=NAME of the"),
            ({"path": ["x"], "n": [1]}, {}, "has path, n, none of which holds images; say --image_feature=NAME of the"),
            (
                {"file_name": ["x"], "image": IMAGES[:1], "label": [1]},
                {"image_feature": "image/encoded"},
                "has file_name, image, label, but no image/encoded; say --image_feature=image",
            ),
            ({"n": [1]}, {"image_feature": "n"}, "holds int64 in n; expected encoded images, or paths of files"),
        ],
    )
    def test_no_choice(self, tmp_path, columns, options, text):
        assert self.describe(tmp_path, columns, **options).startswith(text)
        found = read_between(write(tmp_path, columns), **options)
        assert {item.reason for item in found} == {"missing_feature"}
        assert len(found) == len(next(iter(columns.values())))
        assert found[0].message.startswith(f"no image: the file {text}")
        assert check_split(write(tmp_path, columns), 401, **options) == found


class TestParts:
    @pytest.mark.parametrize("row_group_size", [1, 7, 100])
    def test_any_two_parts_are_the_whole(self, tmp_path, row_group_size):
        task = write(tmp_path, {"image": hugging_face(), "n": range(ROWS)}, row_group_size=row_group_size)
        whole = check_split(task, 1999, passthrough=("n",))
        assert [item.image for item in whole] == IMAGES

    def test_small_batches(self, tmp_path, monkeypatch):
        monkeypatch.setattr(parquet_files, "BATCH_BYTES", 3000)
        whole = check_split(write(tmp_path, {"image": hugging_face()}, row_group_size=100), 1999)
        assert [item.image for item in whole] == IMAGES

    def test_more_rows_than_bytes(self, tmp_path):
        images = pa.array([b"x"] * 20_000)
        task = write(tmp_path, {"image": images}, row_group_size=5000)
        assert task.files[0].size_bytes < 20_000
        whole = check_split(task, task.files[0].size_bytes // 3)
        assert [item.key for item in whole] == [f"a.parquet@{row}".encode() for row in range(20_000)]

    def test_files_are_cut_into_parts_of_some_size(self, tmp_path):
        task = write(tmp_path, {"image": hugging_face()})
        assert list(cut_task(task, 100)) == [TaskPart(task, 0, task.files[0].size_bytes, task.files[0].size_bytes)]

    @pytest.mark.parametrize(
        ("ranges", "rows"),
        [(((3, 4),), [3]), (((0, 2), (6, 9), (19, 20)), [0, 1, 6, 7, 8, 19]), (((18, 99),), [18, 19])],
    )
    def test_ranges_of_rows(self, tmp_path, ranges, rows):
        task = write(tmp_path, {"image": hugging_face()}, ranges=ranges)
        found = check_split(task, 1)
        assert [item.image for item in found] == [IMAGES[row] for row in rows]

    def test_an_empty_table(self, tmp_path):
        assert read_between(write(tmp_path, {"image": pa.array([], pa.binary())})) == []

    def test_a_file_in_a_store(self, gcs, tmp_path):
        write(tmp_path, {"image": pa.array([*IMAGES, None]), "n": range(ROWS + 1)})
        gcs.write("gs://bucket/tables/a.parquet", (tmp_path / "a.parquet").read_bytes())
        (task,) = make_tasks(find_inputs(InputConfig(("gs://bucket/tables",))))
        *whole, none = check_split(task, 5001)
        assert [item.image for item in whole] == IMAGES
        assert none.source == f"gs://bucket/tables/a.parquet@{ROWS}"

    def test_paths_beside_a_file_in_a_store(self, gcs, tmp_path):
        write(tmp_path, {"path": ["d/1.jpg", "gs://bucket/beside/d/1.jpg"]})
        gcs.write("gs://bucket/beside/a.parquet", (tmp_path / "a.parquet").read_bytes())
        gcs.write("gs://bucket/beside/d/1.jpg", b"one")
        (task,) = make_tasks(find_inputs(InputConfig(("gs://bucket/beside/a.parquet",))))
        assert [item.image for item in read_between(task, image_feature="path")] == [b"one", b"one"]


class TestDamage:
    def test_a_damaged_row_group_costs_its_rows_from_there(self, tmp_path):
        task = write(tmp_path, {"image": hugging_face()}, use_dictionary=False, write_page_checksum=True)
        data = bytearray((tmp_path / "a.parquet").read_bytes())
        column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0)
        start = column.data_page_offset + column.total_compressed_size // 2
        data[start : start + 240] = bytes(240)
        (tmp_path / "a.parquet").write_bytes(data)
        whole = check_split(task, 307)
        damage = [item for item in whole if isinstance(item, Failure)]
        assert [(item.source, item.reason) for item in damage] == [(f"{tmp_path}/a.parquet@7-14", "corrupt_record")]
        assert damage[0].message.startswith("7 rows cannot be read: ")
        assert "\n" not in damage[0].message
        images = [item.image for item in whole if isinstance(item, ImageRecord)]
        assert images == IMAGES[:7] + IMAGES[14:]
        assert read_between(make_task(tmp_path / "a.parquet", "parquet", ranges=((7, 14),))) == damage

    @pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:5000], lambda data: b"no table"])
    def test_a_file_without_its_end(self, tmp_path, damage):
        write(tmp_path, {"image": hugging_face()})
        (tmp_path / "a.parquet").write_bytes(damage((tmp_path / "a.parquet").read_bytes()))
        task = make_task(tmp_path / "a.parquet", "parquet")
        (failure,) = check_split(task, 901)
        assert (failure.source, failure.reason) == (f"{tmp_path}/a.parquet", "corrupt_record")
        problem = find_kind("parquet").describe_problem(task.files[0])
        assert failure.message == f"the file {problem}"
        expected = (
            "is no Parquet file" if task.files[0].size_bytes < 10 else "is a Parquet file that is damaged or cut off"
        )
        assert problem.startswith(expected)

    def test_a_row_group_that_ends_in_silence(self, tmp_path, monkeypatch):
        read_all = pq.ParquetFile.iter_batches

        def read_less(self, *args, row_groups, **options):
            batches = read_all(self, *args, row_groups=row_groups, **options)
            return (batch.slice(0, 4) if row_groups == [1] else batch for batch in batches)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", read_less)
        whole = check_split(write(tmp_path, {"image": hugging_face()}), 1999)
        assert [item.image for item in whole if isinstance(item, ImageRecord)] == IMAGES[:11] + IMAGES[14:]
        (damage,) = [item for item in whole if isinstance(item, Failure)]
        assert (damage.source, damage.message) == (
            f"{tmp_path}/a.parquet@11-14",
            "3 rows cannot be read: the row group ends early",
        )

    def test_texts_that_are_no_utf_8(self, tmp_path):
        texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())
        task = write(tmp_path, {"image": IMAGES[:2], "text": texts}, row_group_size=1)
        good, bad = read_between(task, passthrough=("text",))
        assert good.features == {"text": ColumnValue(pa.string(), "ok")}
        assert (bad.reason, bad.source) == ("corrupt_record", f"{tmp_path}/a.parquet@1-2")

    @pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.duration("s")], ids=str)
    def test_values_that_python_lacks(self, tmp_path, kind):
        values = pa.array([1, 1 << 30 if kind == pa.date32() else 1 << 60], f"int{kind.bit_width}").cast(kind)
        task = write(tmp_path, {"image": IMAGES[:2], "when": values}, row_group_size=1)
        good, bad = read_between(task, passthrough=("when",))
        assert good.image == IMAGES[0]
        assert (bad.reason, bad.source) == ("corrupt_record", f"{tmp_path}/a.parquet@1-2")

    def test_the_column_is_found_in_the_first_rows_that_can_be_read(self, tmp_path):
        columns = {"a": [b"x"] * ROWS, "b": IMAGES}
        write(tmp_path, columns, use_dictionary=False, write_page_checksum=True)
        data = bytearray((tmp_path / "a.parquet").read_bytes())
        column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)
        start = column.data_page_offset + column.total_compressed_size // 2
        data[start : start + 240] = bytes(240)
        (tmp_path / "a.parquet").write_bytes(data)
        found = read_between(make_task(tmp_path / "a.parquet", "parquet"))
        assert [item.image for item in found if isinstance(item, ImageRecord)] == IMAGES[7:]
        assert [item.source for item in found if isinstance(item, Failure)] == [f"{tmp_path}/a.parquet@0-7"]

    def test_what_else_is_no_table_of_images(self, tmp_path):
        (tmp_path / "empty.parquet").write_bytes(b"")
        describe = find_kind("parquet").describe_problem
        assert describe(make_task(tmp_path / "empty.parquet", "parquet").files[0]) == "is empty"
        assert describe(write(tmp_path, {"image": pa.array([], pa.binary())}).files[0]) == "has no rows"
        assert describe(write(tmp_path, {"image": IMAGES}).files[0]) == ""

    def test_a_file_that_vanished(self, tmp_path):
        task = write(tmp_path, {"image": hugging_face()})
        (tmp_path / "a.parquet").unlink()
        (failure,) = read_between(task)
        assert (failure.key, failure.source, failure.reason) == (b"a.parquet", f"{tmp_path}/a.parquet", "read_error")

    def test_a_file_that_cannot_be_read_to_its_end(self, tmp_path, monkeypatch):
        task = write(tmp_path, {"image": [bytes([row]) * 100_000 for row in range(ROWS)]}, compression="none")
        data = (tmp_path / "a.parquet").read_bytes()

        monkeypatch.setattr(parquet_files, "BUFFER_BYTES", 10_000)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(data, 1_000_000, tail=70_000))
        *good, failure = read_between(task)
        assert [item.image[0] for item in good] == list(range(7))
        assert (failure.reason, failure.source) == ("read_error", f"{tmp_path}/a.parquet@7-{ROWS}")
        assert failure.message == "Input/output error"

    def test_parts_that_cannot_be_opened_are_read_again(self, tmp_path, monkeypatch):
        task = write(tmp_path, {"image": hugging_face()})
        whole = read_between(task)
        size, path = task.files[0].size_bytes, f"{tmp_path}/a.parquet"

        def refuse(path):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "open_read", refuse)
            failed = [*read_between(task, 0, 3000), *read_between(task, 3000, 9000), *read_between(task, 9000)]
            spans = [(0, 3000), (3000, 9000), (9000, size)]
            assert [(item.key.decode(), item.source) for item in failed] == [
                (f"a.parquet@{start}-{stop}", f"{path}@{start}-{stop}") for start, stop in spans
            ]
            again = dataclasses.replace(task, ranges=tuple(spans), aligned=False)
            assert [*read_between(again, 0, 1), *read_between(again, 1)] == failed
            rows = dataclasses.replace(task, ranges=((3, 5), (8, 9)))
            failed_rows = [*read_between(rows, 0, 1), *read_between(rows, 1)]
            assert [item.source for item in failed_rows] == [f"{path}@3-5", f"{path}@8-9"]
            assert [item.key for item in failed_rows] == [b"a.parquet@3", b"a.parquet@8"]
        for first, last in ((0, 1), (1, 2), (2, 3), (0, 3)):
            found = read_between(again, first, last)
            assert found == read_between(task, spans[first][0], spans[last - 1][1])
        assert read_between(again) == whole

    def test_ranges_that_cannot_be_read_fail_one_by_one(self, tmp_path, monkeypatch):
        """Another try must not read the rows between them: they are done."""
        columns = {"image": [bytes([row]) * 100_000 for row in range(ROWS)]}
        task = write(tmp_path, columns, compression="none", ranges=((2, 4), (6, 12), (15, 16)))
        data = (tmp_path / "a.parquet").read_bytes()
        monkeypatch.setattr(parquet_files, "BUFFER_BYTES", 10_000)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(data, 1_000_000, tail=70_000))
        *good, first, second = read_between(task)
        assert [item.image[0] for item in good] == [2, 3, 6]
        assert [item.source.partition("@")[2] for item in (first, second)] == ["7-12", "15-16"]
        assert [item.key for item in (first, second)] == [b"a.parquet@7", b"a.parquet@15"]
        assert read_until(task, 2) == [*good, first]
