import dataclasses

import pyarrow as pa
import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import ColumnValue, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.tasks import cut_task, find_kind
from pipeline.storage import filesystem
from tests.inputs.reading import breaking, check_split, make_task, read_between


@pytest.fixture
def folder(tmp_path):
    for name in ("1.jpg", "2.jpg", "a, b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def write(folder, data, **options):
    (folder / "a.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return make_task(folder / "a.csv", "csv", **options)


ROWS = 'file,label,caption\n1.jpg,3,"two\nlines, and ""quotes"""\n"a, b.jpg",4,\n\nmissing.jpg,5,x\n'


def test_each_row_is_a_record(folder):
    first, second, missing = read_between(write(folder, ROWS), passthrough=("label", "caption"))
    assert first == ImageRecord(
        b"a.csv@0",
        f"{folder}/a.csv@0",
        b"1.jpg",
        {
            "label": ColumnValue(pa.string(), "3"),
            "caption": ColumnValue(pa.string(), 'two\nlines, and "quotes"'),
        },
    )
    assert second.image == b"a, b.jpg"
    assert missing == Failure(
        b"a.csv@2", f"{folder}/a.csv@2-3", "read", "read_error", "missing.jpg: No such file or directory"
    )


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings(folder, delimiter, encoding):
    text = "id,path\r\né,1.jpg\r\nb,2.jpg\r\n".replace(",", delimiter)
    found = read_between(write(folder, text.encode(encoding)), key_feature="id", passthrough=("*",))
    assert [(item.key, item.image) for item in found] == [("é".encode(), b"1.jpg"), (b"b", b"2.jpg")]
    assert list(found[0].features) == ["id"]


def test_the_column_of_paths(folder):
    task = write(folder, "small,large\n1.jpg,2.jpg\n")
    assert [item.image for item in read_between(task, image_feature="large")] == [b"2.jpg"]
    (failure,) = read_between(task)
    text = "has small, large, of which several hold paths of images; say --image_feature=small"
    assert (failure.reason, failure.message) == ("missing_feature", f"no image: the file {text}")
    describe = find_kind("csv").describe_mismatch
    assert describe(task.files[0], ReadSettings(InputConfig(("unused",)))) == text
    settings = ReadSettings(InputConfig(("unused",), image_feature="x"))
    assert describe(task.files[0], settings) == "has small, large, but no x; say --image_feature=small"


def test_rows_that_lack_something(folder):
    task = write(folder, "file,id\n,a\n1.jpg\n2.jpg,c\n")
    no_image, no_key, good = read_between(task, key_feature="id", image_feature="file")
    assert (no_image.key, no_image.message) == (b"a", "no image: the row has no value in column 'file'")
    assert (no_key.key, no_key.message) == (b"a.csv@1", "no key: the row has no 'id'")
    assert (good.key, good.image) == (b"c", b"2.jpg")


def test_ranges_of_rows(folder):
    rows = "file\n" + "1.jpg\n2.jpg\n" * 100
    task = write(folder, rows, ranges=((3, 4), (150, 153)))
    assert [item.source for item in read_between(task)] == [f"{folder}/a.csv@{row}" for row in (3, 150, 151, 152)]
    assert len(read_between(write(folder, rows))) == 200


def test_all_ranges_are_read_in_one_pass_that_ends_with_the_last(folder, monkeypatch):
    data = b"file\n" + b"1.jpg\n2.jpg\n" * 3000
    task = write(folder, data, ranges=[(row, row + 1) for row in range(0, 600, 3)])
    whole = check_split(task, 57)
    assert [item.source for item in whole] == [f"{folder}/a.csv@{row}" for row in range(0, 600, 3)]
    open_read, opened = filesystem.open_read, []

    def open_counted(path):
        if not path.endswith("csv"):
            return open_read(path)
        opened.append(path)
        return breaking(data, 20_000)

    monkeypatch.setattr(filesystem, "open_read", open_counted)
    assert read_between(task) == whole
    assert len(opened) == 1


def test_ranges_without_rows_and_ranges_in_others(folder):
    task = write(folder, "file\n" + "1.jpg\n" * 10, ranges=((2, 7), (3, 4), (9, 12), (50, 60)))
    assert [item.source for item in read_between(task)] == [f"{folder}/a.csv@{row}" for row in (2, 3, 4, 5, 6, 9)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_two_parts_are_the_whole(folder, encoding):
    rows = "".join(f'{index % 2 + 1}.jpg,"é, {index}\nand more","x""y"\r\n\r\n' for index in range(90))
    task = write(folder, f"file,text,more\n{rows}".encode(encoding))
    whole = check_split(task, 97, passthrough=("text",))
    assert [item.key for item in whole] == [f"a.csv@{row}".encode() for row in range(90)]
    assert whole[7].features["text"].value == "é, 7\nand more"


def test_a_large_file_has_several_parts(folder):
    task = write(folder, "file\n" + "1.jpg\n" * 100_000)
    parts = list(cut_task(task, 64 << 20))
    assert 2 < len(parts) <= 64
    assert sum(part.size_bytes for part in parts) <= find_kind("csv").size_bytes(task)


class TestReadErrors:
    DATA = b"file\n" + b"1.jpg\n" * 6000

    @pytest.fixture
    def broken(self, monkeypatch):
        """From now on, no table can be read past its first 20,000 bytes."""
        open_read = filesystem.open_read

        def open_broken(path):
            return breaking(self.DATA, 20_000) if path.endswith("csv") else open_read(path)

        return lambda: monkeypatch.setattr(filesystem, "open_read", open_broken)

    def test_the_rest_of_a_part_is_read_again_and_no_other_row(self, folder, broken, monkeypatch):
        task = write(folder, self.DATA)
        size, whole = task.files[0].size_bytes, read_between(task)
        broken()
        *good, first = read_between(task, 0, 30_000)
        (second,) = read_between(task, 30_000)
        assert first.reason == second.reason == "read_error"
        assert good == whole[: len(good)]
        start = 5 + 6 * (len(good) - 1) + 1  # right after the start of the last row
        spans = ((start, 30_000), (30_000, size))
        for failure, (start, stop) in zip((first, second), spans, strict=True):
            assert failure.key.decode() == f"a.csv@{start}-{stop}"
            assert failure.source == f"{folder}/a.csv@{start}-{stop}"
        again = dataclasses.replace(task, ranges=spans, aligned=False)
        assert read_between(again) == [first, second]
        monkeypatch.undo()
        assert read_between(again) == whole[len(good) :]

    def test_a_table_of_which_nothing_can_be_read(self, folder, monkeypatch):
        task = write(folder, self.DATA)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(self.DATA, 0))
        (failure,) = read_between(task)
        assert (failure.key, failure.source) == (b"a.csv", f"{folder}/a.csv")

    def test_ranges_fail_one_by_one(self, folder, broken):
        task = write(folder, self.DATA, ranges=((3, 4), (10, 5000), (5500, 5501)))
        broken()
        *good, first, second = read_between(task)
        sources = [f"{folder}/a.csv@{row}" for row in (3, *range(10, 9 + len(good)))]
        assert [item.source for item in good] == sources
        assert first.source == f"{folder}/a.csv@{9 + len(good)}-5000"
        assert (second.key, second.source) == (b"a.csv@5500", f"{folder}/a.csv@5500-5501")


def test_what_is_no_table(folder):
    describe = find_kind("csv").describe_problem
    assert describe(write(folder, "").files[0]) == "has no rows"
    assert describe(write(folder, "file\n").files[0]) == "has no rows"
    assert describe(write(folder, ROWS).files[0]) == ""


def test_images_in_a_store(gcs, folder):
    from pipeline.inputs.find import find_inputs
    from pipeline.inputs.tasks import make_tasks

    gcs.write("gs://bucket/csv/a.csv", b"file\n1.jpg\ngs://bucket/csv/d/2.jpg\n")
    gcs.write("gs://bucket/csv/1.jpg", b"one")
    gcs.write("gs://bucket/csv/d/2.jpg", b"two")
    (task,) = make_tasks(find_inputs(InputConfig(("gs://bucket/csv/a.csv",))))
    assert [item.image for item in read_between(task)] == [b"one", b"two"]
