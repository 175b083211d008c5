"""Rows of damaged images: how they are listed, superseded, compacted and checked."""

import dataclasses

import pytest

from pipeline.core.failures import DamagedImage
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import live, read_manifests
from pipeline.dataset.ownership import is_own_file
from pipeline.dataset.reader import read_damaged
from pipeline.dataset.verify import verify
from tests.datasets import add_wave, entry, make_batch


def batch_of(vectors, damaged):
    lines = tuple(DamagedImage(key.encode(), f"/in/{key}", "half of it is grey") for key in damaged)
    return dataclasses.replace(make_batch(vectors), damaged=lines)


def fill(output):
    """Two waves: the second has a whole `b`, and a damaged `c`."""
    first = batch_of({"a": [1, 0, 0], "b": [1, 0, 0], "c": [1, 0, 0]}, "ab")
    add_wave(output, "00000", first, inputs=tuple(map(entry, "abc")))
    second = batch_of({"b": [2, 0, 0], "c": [2, 0, 0]}, "c")
    add_wave(output, "00001", second, inputs=(entry("b", size_bytes=11), entry("c", size_bytes=11)))


def test_only_current_rows_are_listed(tmp_path):
    fill(tmp_path)
    assert sorted(item.key for item in read_damaged(str(tmp_path))) == [b"a", b"c"]
    assert [manifest.damaged_but_embedded for manifest in read_manifests(str(tmp_path))] == [2, 1]
    report = verify(str(tmp_path))
    assert (report.rows, report.failures, report.problems, report.strays) == (3, 0, (), ())


def test_compaction_keeps_the_list_of_current_rows(tmp_path):
    fill(tmp_path)
    compact(str(tmp_path))
    assert sorted(item.key for item in read_damaged(str(tmp_path))) == [b"a", b"c"]
    (manifest,) = live(read_manifests(str(tmp_path)))
    assert manifest.damaged_but_embedded == 2
    assert verify(str(tmp_path)).problems == ()
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["damaged-00002-00000-of-00001.jsonl"]


def test_a_damaged_list_is_found_and_belongs_to_the_data_set(tmp_path):
    fill(tmp_path)
    path = tmp_path / "damaged/damaged-00000-00000-of-00001.jsonl"
    assert is_own_file(str(tmp_path), str(path))
    path.write_text(path.read_text().replace("grey", "pink"))
    (problem,) = verify(str(tmp_path)).problems
    assert problem.startswith("damaged/damaged-00000-00000-of-00001.jsonl: CRC-32C ")
    (tmp_path / "damaged/other").write_text("?")
    assert verify(str(tmp_path)).strays == (str(tmp_path / "damaged/other"),)


@pytest.mark.parametrize("key", [b"a", b"\xff\n"])
def test_a_line_holds_any_key(key):
    item = DamagedImage(key, "/in/\udcff", "two\nlines")
    line = item.to_json()
    assert "\n" not in line
    assert DamagedImage.from_json(line) == item
