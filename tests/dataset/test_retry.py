import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.failures import Failure
from pipeline.dataset.tables import InputEntry
from pipeline.inputs.base import ReadTask
from tests.dataset.planning import Covered, PlannedWave, failure, image, records
from tests.datasets import entry
from tests.inputs.reading import make_task, read_between
from tests.inputs.tasks import image_task, record_task


@pytest.fixture
def covered(tmp_path):
    return Covered(tmp_path / "out")


def test_images_by_their_files(covered):
    files = [image("a"), image("b"), image("c@7.jpg")]
    covered.add("00000", *(entry(file.name) for file in files))
    found = covered.plan(files, failures=[failure("b"), failure("c@7.jpg")])
    assert found.waves == [PlannedWave(files[1:], [image_task(files[1:])], ["/in/b", "/in/c@7.jpg"])]
    assert found.skipped == 1


def test_records_and_ranges_by_their_addresses(covered):
    file = records("a")
    covered.add("00000", entry("a", size_bytes=1000, records=9))
    failures = [
        failure("a@500", "/in/a@500-600", "corrupt_record"),
        failure("key of the feature", "/in/a@20"),
        failure("a@900-1000", "/in/a@900-1000", "read_error"),
        failure("a@700", "/in/a@700-800", "read_error"),
    ]
    found = covered.plan([file], failures=failures)
    assert found.waves[0].tasks == [
        record_task(file, ((900, 1000),), aligned=False),
        record_task(file, ((20, 21), (500, 600), (700, 800))),
    ]
    assert found.waves[0].retried == ["/in/a@900-1000", "/in/a@20", "/in/a@500-600", "/in/a@700-800"]
    assert found.skipped == 5


def test_parts_of_a_file_of_rows_that_could_not_be_opened(covered):
    """Nobody knows their rows: their ranges are of positions, and rows that failed are tried apart from them."""
    file = dataclasses.replace(records("a"), kind="parquet")
    covered.add("00000", dataclasses.replace(entry("a", size_bytes=1000, records=9)))
    failures = [
        failure("a@0-400", "/in/a@0-400", "read_error"),
        failure("a@700-1000", "/in/a@700-1000", "read_error"),
        failure("a@5", "/in/a@5-8", "corrupt_record"),
    ]
    tasks = covered.plan([file], failures=failures).waves[0].tasks
    assert [(task.ranges, task.aligned) for task in tasks] == [(((0, 400), (700, 1000)), False), (((5, 8),), True)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_whose_images_are_missing_are_read_again_and_no_other_row(tmp_path, kind):
    (tmp_path / "1.jpg").write_bytes(b"one")
    paths = ["missing.jpg" if row in (3, 6) else "1.jpg" for row in range(10)]
    if kind == "csv":
        (tmp_path / "a.csv").write_text("\n".join(["file", *paths, ""]))
    else:
        pq.write_table(pa.table({"file": paths}), tmp_path / "a.parquet")
    (file,) = make_task(tmp_path / f"a.{kind}", kind).files
    found = read_between(ReadTask(kind, (file,)), image_feature="file")
    failures = [item for item in found if isinstance(item, Failure)]
    assert [item.key.decode() for item in failures] == [f"a.{kind}@3", f"a.{kind}@6"]
    done = InputEntry(file.path, file.name, file.size_bytes, file.mtime_s, 10)
    (task,) = Covered(tmp_path / "out").add("00000", done).plan([file], failures=failures).waves[0].tasks
    assert read_between(task, image_feature="file") == failures
    (tmp_path / "missing.jpg").write_bytes(b"two")
    again = read_between(task, image_feature="file")
    assert [(item.source, item.image) for item in again] == [(f"{file.path}@{row}", b"two") for row in (3, 6)]


def test_a_compressed_file_that_broke_off(covered):
    covered.add("00000", entry("a.gz", size_bytes=1000))
    between = failure("a.gz@5000", "/in/a.gz@5000-5000", "corrupt_record")
    unread = failure("a.gz@6000", "/in/a.gz@6000", "read_error")
    (task,) = covered.plan([records("a.gz")], failures=[between, unread]).waves[0].tasks
    ((start, stop), (rest, end)) = task.ranges
    assert (start, stop, rest) == (5000, 5001, 6000)
    assert end > 1 << 60


def test_a_file_of_which_nothing_was_read_is_read_as_a_new_one(covered):
    file = records("a")
    covered.add("00000", entry("a", size_bytes=1000, records=1))
    found = covered.plan([file], failures=[failure("a", reason="read_error")])
    assert found.waves == [PlannedWave([file], [record_task(file)], [])]
    assert found.skipped == 0


def test_a_changed_file_is_read_anyway_and_a_file_that_is_gone_never(covered):
    covered.add("00000", entry("a"), entry("gone"))
    changed = image("a", size_bytes=11)
    found = covered.plan([changed], failures=[failure("a"), failure("gone")])
    assert found.waves == [PlannedWave([changed], [image_task([changed])], [])]


def test_comes_after_what_is_new(covered):
    found = covered.add("00000", entry("a")).plan([image("a"), image("b")], failures=[failure("a")])
    assert [(wave.paths, wave.retried) for wave in found.waves] == [(["/in/b"], []), (["/in/a"], ["/in/a"])]


def test_many_are_cut_into_waves_with_their_own_sources(covered):
    files = [image(name, size_bytes=100) for name in "abcde"]
    covered.add("00000", *(entry(file.name, size_bytes=100) for file in files))
    failures = [failure(name) for name in "edcba"]
    for limit in ({"wave_files": 2}, {"wave_bytes": 250}):
        found = covered.plan(files, failures=failures, **limit)
        assert [wave.paths for wave in found.waves] == [["/in/a", "/in/b"], ["/in/c", "/in/d"], ["/in/e"]]
        assert [wave.retried for wave in found.waves] == [wave.paths for wave in found.waves]


def test_a_range_counts_with_its_bytes(covered):
    file = records("a", size_bytes=1 << 30)
    covered.add("00000", entry("a", size_bytes=1 << 30, records=9), entry("b"), entry("c"))
    failures = [failure("a@5", "/in/a@5-10", "corrupt_record"), failure("b"), failure("c")]
    found = covered.plan([file, image("b"), image("c")], failures=failures, wave_bytes=20)
    assert [wave.paths for wave in found.waves] == [["/in/a", "/in/b"], ["/in/c"]]
    found = covered.plan([file, image("b"), image("c")], failures=failures, wave_bytes=25)
    assert [wave.paths for wave in found.waves] == [["/in/a", "/in/b", "/in/c"]]


def test_bytes_that_are_no_text(covered):
    file = dataclasses.replace(image("x"), path="/in/\udcff", name="\udcff")
    failed = Failure(b"\xff", "/in/\udcff", "decode", "empty", "")
    covered.add("00000", dataclasses.replace(entry("x"), path="/in/\udcff", name="\udcff"))
    (wave,) = covered.plan([file], failures=[failed]).waves
    assert (wave.files, wave.retried) == ([file], ["/in/\udcff"])


def test_an_image_beside_a_file_of_records_whose_address_it_is_named_like(covered):
    files = [records("a"), image("a@5")]
    covered.add("00000", entry("a", size_bytes=1000, records=3), dataclasses.replace(entry("a@5"), keys="name"))
    found = covered.plan(files, failures=[failure("a@5")])
    assert found.waves == [PlannedWave([files[1]], [image_task([files[1]])], ["/in/a@5"])]
    assert found.skipped == 3


def test_failures_of_a_new_data_set_are_nothing(covered):
    assert covered.plan([image("a")], failures=[failure("a")]).waves[0].retried == []
