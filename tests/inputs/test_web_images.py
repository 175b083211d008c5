"""Images at web addresses, in lists, CSV and Parquet."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.tasks import cut_task, find_kind, make_tasks
from tests.inputs.finding import find, names
from tests.inputs.reading import make_task, read_between, read_until
from tests.web_server import hang, reply

PRIVATE = {"allow_private_addresses": True}


@pytest.fixture
def addresses(web):
    """Ten images; the fourth one is missing."""
    return [web.serve(f"/{i}.jpg", reply(b"web %d" % i) if i != 3 else reply(status=404)) for i in range(10)]


def to_file(path):
    return InputFile(path, path, "images", 0, 0.0)


def missing(key, source, path):
    text = "the server answered 404 Status; check the address"
    return Failure(key, source, "read", "http_404", text if path is None else f"{path}: {text}")


class TestLists:
    def write(self, folder, lines):
        (folder / "a.jpg").write_bytes(b"file")
        (folder / "all.txt").write_text("\n".join(lines))
        return find(folder / "all.txt")

    def test_addresses_and_paths(self, tmp_path, addresses):
        lines = [addresses[1], f"{tmp_path}/a.jpg", f"  {addresses[3]} ", "# a comment", addresses[0]]
        files = self.write(tmp_path, lines)
        assert sorted(names(files)) == sorted([*lines[:3], lines[4]])
        found = {item.key.decode(): item for task in make_tasks(files) for item in read_between(task, **PRIVATE)}
        assert found[lines[0]] == ImageRecord(lines[0].encode(), addresses[1], b"web 1")
        assert found[lines[1]].image == b"file"
        assert found[lines[2]] == missing(lines[2].encode(), addresses[3], None)
        assert found[lines[4]].image == b"web 0"

    def test_have_neither_size_nor_time(self, tmp_path, addresses):
        (file,) = self.write(tmp_path, addresses[:1])
        assert (file.path, file.kind, file.size_bytes, file.mtime_s) == (addresses[0], "images", 0, 0.0)

    @pytest.mark.parametrize("line", ["https://h/a?w=1,2;3", "http://h/a,b.jpg", "HTTP://h/x y.jpg", "http://"])
    def test_odd_addresses_are_no_tables(self, tmp_path, line):
        assert names(self.write(tmp_path, [line])) == [line]

    def test_the_order_is_that_of_the_task(self, tmp_path, addresses):
        (task,) = make_tasks(self.write(tmp_path, addresses))
        found = read_between(task, **PRIVATE)
        assert [item.source for item in found] == [file.path for file in task.files]

    def test_parts_read_what_they_claim(self, tmp_path, addresses, web):
        (task,) = make_tasks(self.write(tmp_path, addresses))
        whole = read_between(task, **PRIVATE)
        for cut in (0, 1, 5, 10):
            web.requests.clear()
            assert read_until(task, cut, **PRIVATE) == whole[:cut]
            assert web.requests.total() == cut
            assert read_between(task, 0, cut, **PRIVATE) + read_between(task, cut, **PRIVATE) == whole

    def test_a_task_has_thousands_of_them_and_is_one_part(self, tmp_path):
        lines = [f"https://h/{index}" for index in range(5000)] + [f"{index}.jpg" for index in range(100)]
        tasks = make_tasks(self.write(tmp_path, lines))
        assert [len(task.files) for task in tasks] == [4096, 904, 64, 36]
        assert [len(list(cut_task(task, 64 << 20))) for task in tasks] == [1, 1, 1, 1]

    def test_private_addresses_need_a_flag(self, tmp_path, addresses, web):
        (task,) = make_tasks(self.write(tmp_path, addresses))
        found = read_between(task)
        assert {item.reason for item in found} == {"http_private_address"}
        assert not web.heads

    def test_limits_are_those_of_the_flags(self, web):
        paths = [web.serve("/slow", hang), web.serve("/large", reply(bytes(11)))]
        task = ReadTask("images", tuple(map(to_file, paths)))
        found = read_between(task, max_image_bytes=10, fetch_timeout=0.1, fetch_concurrency=1, **PRIVATE)
        assert [item.reason for item in found] == ["http_timeout", "too_large"]
        assert web.most == 1


class TestTables:
    """CSV and Parquet with addresses and paths in one column."""

    @pytest.fixture(params=["csv", "parquet"])
    def table(self, request, tmp_path, addresses):
        (tmp_path / "a.jpg").write_bytes(b"file")
        self.paths = [addresses[1], "a.jpg", addresses[3], addresses[2]]
        keys = ["k0", "k1", "k2", "k3"]
        if request.param == "csv":
            with (tmp_path / "t.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("url", "id"), *zip(self.paths, keys, strict=True)])
        else:
            pq.write_table(pa.table({"url": self.paths, "id": keys}), tmp_path / "t.parquet")
        return make_task(tmp_path / f"t.{request.param}", request.param)

    def test_rows(self, table):
        found = read_between(table, image_feature="url", key_feature="id", passthrough=("id",), **PRIVATE)
        source = table.files[0].path
        assert found[2] == missing(b"k2", f"{source}@2", self.paths[2])
        assert [(item.key, item.source, item.image) for item in found[:2] + found[3:]] == [
            (b"k0", f"{source}@0", b"web 1"),
            (b"k1", f"{source}@1", b"file"),
            (b"k3", f"{source}@3", b"web 2"),
        ]
        assert found[0].features["id"].value == "k0"

    def test_a_row_alone(self, table, web):
        task = ReadTask(table.kind, table.files, ((2, 3),))
        web.requests.clear()
        (found,) = read_between(task, image_feature="url", **PRIVATE)
        assert found.reason == "http_404"
        assert dict(web.requests) == {"/3.jpg": 1}

    def test_private_addresses_need_a_flag(self, table):
        found = read_between(table, image_feature="url")
        assert [item.reason for item in found if isinstance(item, Failure)] == ["http_private_address"] * 3


def test_a_column_of_addresses_is_found_in_a_csv_file(tmp_path, addresses):
    (tmp_path / "a.csv").write_text(f"text,url\ncat,{addresses[0]}?size=2\n")
    (found,) = read_between(make_task(tmp_path / "a.csv", "csv"), **PRIVATE)
    assert found.image == b"web 0"
    (tmp_path / "a.csv").write_text(f"page,file\n{addresses[0]}?x,a.jpg\n")
    (found,) = read_between(make_task(tmp_path / "a.csv", "csv"), **PRIVATE)
    assert found.message.startswith("a.jpg: ")


def test_a_struct_whose_bytes_are_null(tmp_path, addresses):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": b"own", "path": addresses[1]}, {"bytes": None, "path": addresses[1]}]
    pq.write_table(pa.table({"image": pa.array(values, kind)}), tmp_path / "a.parquet")
    found = read_between(make_task(tmp_path / "a.parquet", "parquet"), **PRIVATE)
    assert [item.image for item in found] == [b"own", b"web 1"]


def test_a_reader_that_stops_early_leaves_nothing_behind(addresses):
    task = ReadTask("images", tuple(map(to_file, addresses)))
    settings = ReadSettings(InputConfig(("unused",), **PRIVATE))
    items = find_kind("images").read(TaskPart(task, 0, 10), lambda _: True, settings)
    assert next(items).image == b"web 0"
    items.close()
