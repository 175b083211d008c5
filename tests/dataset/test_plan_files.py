import dataclasses
import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import OutputError
from pipeline.dataset import plan_files
from pipeline.dataset.plan import PLAN_SCHEMA, Wave
from pipeline.dataset.plan_files import read_covered, read_plan, write_plan
from pipeline.dataset.tables import INPUTS_SCHEMA, inputs_of
from pipeline.inputs.base import InputFile
from pipeline.inputs.input_table import InputTable, from_files
from pipeline.storage.lock import DatasetLock
from pipeline.storage.tables import TableWriter
from tests.dataset.planning import image, records
from tests.datasets import TOKEN, entry, unlocked
from tests.inputs.tasks import image_task, record_task

NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff\uf7ff\n\r\u2028@"), min_size=1, max_size=8)
IMAGES = st.builds(
    InputFile,
    path=NAMES,
    name=NAMES,
    kind=st.just("images"),
    size_bytes=st.integers(0, 1 << 62),
    mtime_s=st.floats(0, 1e10),
)
RECORDS = st.builds(dataclasses.replace, IMAGES, kind=st.just("tfrecord"))
RANGES = st.lists(st.tuples(st.integers(0, 9), st.integers(10, 1 << 62)), min_size=1, max_size=3).map(tuple)


def write_ranges(path, tasks):
    """Writes tasks that read ranges of files, as the planning of another try does."""
    files = from_files(task.files[0] for task in tasks)
    ranges = pa.array([[end for item in task.ranges for end in item] for task in tasks], pa.list_(pa.int64()))
    aligned = pa.array([task.aligned for task in tasks], pa.bool_())
    with TableWriter(path, PLAN_SCHEMA) as writer:
        writer.write(pa.record_batch([*files.columns, ranges, aligned], schema=PLAN_SCHEMA))
    return Wave(path, 0, len(tasks))


@given(files=st.lists(IMAGES | RECORDS, max_size=8))
@settings(deadline=None, max_examples=50)
def test_files_survive_the_round_trip(tmp_path_factory, files):
    table = InputTable.of(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_files, "FILES_PER_PLAN_FILE", 3)
        directory = unlocked(tmp_path_factory.getbasetemp() / "plans")
        written = write_plan(directory, "00000", Wave(table.path, 0, table.rows))
    chosen = [[file for file in files if file.kind == kind] for kind in ("tfrecord", "images")]
    assert len(written) == sum(math.ceil(len(some) / 3) for some in chosen)
    # Files of records come first: they are the larger tasks.
    tasks = [task for path in written for task in read_plan(path)]
    assert [file for task in tasks for file in task.files] == [*chosen[0], *chosen[1]]
    assert all(task.kind == file.kind and task.ranges is None for task in tasks for file in task.files)


@given(tasks=st.lists(st.builds(record_task, RECORDS, RANGES, st.booleans()), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_ranges_survive_the_round_trip(tmp_path_factory, tasks):
    base = tmp_path_factory.getbasetemp()
    (path,) = write_plan(unlocked(base / "plans"), "00000", write_ranges(str(base / "ranges.parquet"), tasks))
    assert list(read_plan(path)) == tasks


def test_only_the_rows_of_the_wave_are_written(tmp_path):
    files = [image(name) for name in "abcde"]
    table = InputTable.of(files)
    (path,) = write_plan(unlocked(tmp_path), "00000", Wave(table.path, 1, 4))
    assert list(read_plan(path)) == [image_task(files[1:4])]


def test_plan_files_are_staged(tmp_path):
    table = InputTable.of([records("a")])
    (path,) = write_plan(unlocked(tmp_path), "00007", Wave(table.path, 0, 1))
    assert path == f"{tmp_path}/staging/{TOKEN}/00007/plan-00000.parquet"


def test_a_run_without_the_lock_writes_no_plan(tmp_path):
    table = InputTable.of([records("a")])
    expected = pytest.raises(OutputError, match="was taken over by process")
    with DatasetLock(str(tmp_path)) as robbed, DatasetLock(str(tmp_path), steal=True), expected:
        write_plan(robbed, "00000", Wave(table.path, 0, 1))
    assert list(tmp_path.iterdir()) == []


def test_the_files_that_are_read_whole_are_covered(tmp_path):
    directory = unlocked(tmp_path)
    table = InputTable.of([records("a"), image("c"), image("d")])
    ranges = write_ranges(str(tmp_path / "ranges.parquet"), [record_task(records("b"), ((0, 9),))])
    paths = [*write_plan(directory, "0", Wave(table.path, 0, table.rows)), *write_plan(directory, "1", ranges)]
    images = [dataclasses.replace(entry(name), keys="name") for name in "cd"]
    for key_feature, keys in ((None, "offset"), ("id", "feature")):
        covered = pa.Table.from_batches(read_covered(paths, key_feature, {"/in/a": 7}), INPUTS_SCHEMA)
        file = entry("a", size_bytes=1000, records=7, keys=keys)
        assert covered.equals(pa.Table.from_batches([inputs_of([file, *images])]))


def test_a_file_without_any_record_is_covered(tmp_path):
    table = InputTable.of([records("\udcff"), records("b")])
    paths = write_plan(unlocked(tmp_path), "0", Wave(table.path, 0, table.rows))
    (covered,) = read_covered(paths, None, {"/in/\udcff": 2})
    assert covered.column("records").to_pylist() == [2, 0]
