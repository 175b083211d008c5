import gzip
import itertools
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.dataset.plan import make_plan
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask
from pipeline.inputs.compressed import stored_bytes
from pipeline.inputs.input_table import InputTable
from pipeline.job.estimate import GroupSample, estimate
from pipeline.job.sample import SAMPLE_TASKS, SampleReader, TaskGroup, share, summarize_plan
from pipeline.testing import make_example, make_tfrecord
from tests.inputs.archives import make_tar

SETTINGS = ReadSettings(InputConfig(("in",)))


def write(path, data):
    path.write_bytes(data)
    kind = "images" if path.suffix == ".jpg" else "tfrecord"
    return InputFile(str(path), path.name, kind, len(data), 1.0)


def record_file(path, images, other_bytes=0):
    """A file of records with images of some sizes and a large other feature of random bytes."""
    rng = random.Random(0)
    examples = [
        make_example({"image/encoded": rng.randbytes(size), "other": rng.randbytes(other_bytes)}) for size in images
    ]
    data = make_tfrecord(examples)
    return write(path, gzip.compress(data) if path.suffix == ".gz" else data)


def plan_of(files, wave_bytes):
    return make_plan(InputTable.of(files), "unused", (), wave_bytes=wave_bytes)


def groups_of(*files, wave_bytes=None):
    return summarize_plan(plan_of(files, wave_bytes)).groups


def read_sample(group, records):
    reader = SampleReader(group, SETTINGS, records)
    images = list(reader)
    return images, GroupSample(reader.measure(), group.total, not group.has_records, len(images), 0.0)


def estimated_records(group, records=64):
    _, sample = read_sample(group, records)
    return estimate([sample]).records


def test_a_plan_is_summed_up_by_kind(tmp_path):
    images = [write(tmp_path / f"{index}.jpg", b"x" * index) for index in range(1, 100)]
    records = [record_file(tmp_path / f"{index}.tfrecord", [10] * 3) for index in range(2)]
    packed = record_file(tmp_path / "c.tfrecord.gz", [10])
    work = summarize_plan(plan_of([*images, *records, packed], 1000))
    assert work.waves > 3
    assert work.skipped == 0
    found = {(group.has_records, group.is_compressed): group for group in work.groups}
    assert {key: (group.files, group.size_bytes, group.total) for key, group in found.items()} == {
        (False, False): (99, 99 * 50, 99),
        (True, False): (2, sum(file.size_bytes for file in records), sum(file.size_bytes for file in records)),
        (True, True): (1, packed.size_bytes, packed.size_bytes),
    }


@pytest.mark.parametrize("count", [1, 3, 7, 8, 100, 1000])
def test_the_sampled_tasks_are_at_even_distances(count):
    files = [
        InputFile(f"{index:04d}.tfrecord", f"{index:04d}.tfrecord", "tfrecord", 100, 1.0) for index in range(count)
    ]
    (group,) = groups_of(*files)
    kept = [int(task.files[0].name.partition(".")[0]) for task in group.tasks]
    assert min(count, SAMPLE_TASKS) <= len(kept) < 2 * SAMPLE_TASKS
    steps = {after - before for before, after in itertools.pairwise(kept)}
    assert kept[0] == 0
    assert len(steps) <= 1
    assert count - kept[-1] <= max(steps, default=1)


def test_large_other_features_do_not_count_as_images(tmp_path):
    file = record_file(tmp_path / "a.tfrecord", [2000] * 100, other_bytes=200_000)
    (group,) = groups_of(file)
    assert estimated_records(group) == pytest.approx(100, rel=0.1)


def test_mixed_image_sizes(tmp_path):
    rng = random.Random(1)
    mixed = record_file(tmp_path / "a.tfrecord", [rng.choice([1_000, 5_000, 20_000]) for _ in range(600)])
    (group,) = groups_of(mixed)
    assert estimated_records(group) == pytest.approx(600, rel=0.2)
    small, large = (
        record_file(tmp_path / f"{size}.tfrecord", [size] * count) for size, count in ((300, 2000), (50_000, 40))
    )
    (group,) = groups_of(small, large)
    assert estimated_records(group) == pytest.approx(2040, rel=0.1)


def test_rows_of_tables_and_samples_of_archives(tmp_path):
    images = [bytes([index % 251]) * 3000 for index in range(500)]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    (tmp_path / "a.tar").write_bytes(make_tar((f"{index}.jpg", image) for index, image in enumerate(images)))
    for name, kind in (("a.parquet", "parquet"), ("a.tar", "webdataset")):
        path = tmp_path / name
        (group,) = groups_of(InputFile(str(path), name, kind, path.stat().st_size, 1.0))
        assert estimated_records(group) == pytest.approx(500, rel=0.1)


def test_compressed_files(tmp_path):
    file = record_file(tmp_path / "a.tfrecord.gz", [2000] * 300, other_bytes=500)
    (group,) = groups_of(file)
    assert group.is_compressed
    assert estimated_records(group) == pytest.approx(300, rel=0.1)


def test_a_small_compressed_file_is_not_taken_for_complete(tmp_path):
    data = gzip.compress(make_tfrecord([make_example({"image/encoded": b"x" * 100})] * 1000))
    (group,) = groups_of(write(tmp_path / "a.tfrecord.gz", data))
    _, sample = read_sample(group, 8)
    assert not sample.is_exact
    assert sample.records == 8


def test_the_compressed_size_of_the_first_bytes(tmp_path):
    contents = random.Random(0).randbytes(1_000_000)
    file = write(tmp_path / "a.tfrecord.gz", gzip.compress(contents))
    assert stored_bytes(file, 400_000) == pytest.approx(400_000, rel=0.1)
    assert stored_bytes(file, 1 << 40) == file.size_bytes
    damaged = write(tmp_path / "b.tfrecord.gz", gzip.compress(contents)[:500_000])
    assert stored_bytes(damaged, 1 << 40) == 500_000


def test_each_task_contributes_records_and_short_ones_leave_their_share(tmp_path):
    one, many = record_file(tmp_path / "a.tfrecord", [10]), record_file(tmp_path / "b.tfrecord", [10] * 50)
    (group,) = groups_of(one, many)
    images, sample = read_sample(group, 20)
    assert [image.source.rpartition("@")[0] for image in images] == [one.path] + [many.path] * 19
    assert [task.is_complete for task in sample.tasks] == [True, False]
    assert estimate([sample]).records == 51


def test_a_sample_reads_no_more_image_files_than_it_needs(tmp_path):
    files = [write(tmp_path / f"{index:03d}.jpg", b"x") for index in range(60)]
    (group,) = groups_of(*files)
    for file in files[10:]:
        (tmp_path / file.name).unlink()
    images, sample = read_sample(group, 10)
    assert [image.key.decode() for image in images] == [file.name for file in files[:10]]
    assert (sample.is_exact, estimate([sample]).records) == (True, 60)


def test_unreadable_records_belong_to_the_sample(tmp_path):
    data = bytearray(make_tfrecord([make_example({"image/encoded": b"x" * 1000})] * 100))
    data[500] ^= 1
    (group,) = groups_of(write(tmp_path / "a.tfrecord", bytes(data)))
    reader = SampleReader(group, SETTINGS, 10)
    images = list(reader)
    assert (len(images), [failure.reason for failure in reader.failures]) == (9, ["corrupt_record"])
    assert estimate([GroupSample(reader.measure(), group.total, False, 9, 0.0)]).records == 100


def test_ranges_are_scaled_by_their_own_bytes(tmp_path):
    file = record_file(tmp_path / "a.tfrecord", [1000] * 100)
    length = file.size_bytes // 100
    ranges = ((0, 10 * length), (50 * length, 100 * length))
    task = ReadTask("tfrecord", (file,), ranges)
    group = TaskGroup(True, False, 0, 60 * length, 60 * length, (task,))
    images, sample = read_sample(group, 15)
    assert all(isinstance(image, ImageRecord) for image in images)
    assert estimate([sample]).records == 60


@pytest.mark.parametrize(("wanted", "count"), [(64, 1), (64, 3), (2, 5), (0, 2)])
def test_shares_add_up(wanted, count):
    left = wanted
    for index in range(count):
        left -= share(left, index, count)
    assert left == 0
