import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipeline.beam import read
from pipeline.beam.options import make_runner, parse_beam_args
from pipeline.beam.read import ReadImages
from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.dataset.plan import Wave
from pipeline.dataset.plan_files import write_plan
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import make_tasks
from pipeline.testing import make_example, make_tfrecord
from tests.datasets import unlocked

EXAMPLES = [make_example({"image/encoded": f"{i}" * 500, "id": f"id{i}"}) for i in range(60)]


def add_up(counts, total):
    counts | "Total" >> beam.CombineGlobally(sum) | "Check" >> beam.Map(_assert_equal, total)


def _assert_equal(found, expected):
    assert found == expected


def run(transform, expected, *args, describe=lambda record: record):
    """Runs the transform; checks its output, and that the counts beside it add up to the number of records."""
    options = parse_beam_args(args)
    with beam.Pipeline(runner=make_runner(options), options=options) as root:
        records, counts = root | transform.counted()
        add_up(counts, len(expected))
        assert_that(records | beam.Map(describe), equal_to(expected))


def transform_of(config, **options):
    return ReadImages(make_tasks(find_inputs(config).by_path()), config, **options)


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(make_tfrecord(EXAMPLES))
    return path


def expected_records(path):
    size = len(make_tfrecord(EXAMPLES[:1]))
    offsets = [len(make_tfrecord(EXAMPLES[:i])) for i in range(len(EXAMPLES))]
    assert offsets[1] == size
    return [
        ImageRecord(f"id{i}".encode(), f"{path}@{offset}", (f"{i}" * 500).encode()) for i, offset in enumerate(offsets)
    ]


@pytest.mark.parametrize("split_bytes", [64 << 20, 5000, 1000])
def test_each_record_is_read_once_however_the_file_is_cut(records, split_bytes, monkeypatch):
    monkeypatch.setattr(read, "PART_BYTES", split_bytes)
    config = InputConfig((str(records),), key_feature="id")
    run(transform_of(config), expected_records(records))


def test_several_threads_read_the_same(records, monkeypatch):
    monkeypatch.setattr(read, "PART_BYTES", 2000)
    config = InputConfig((str(records),), key_feature="id")
    args = ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]
    run(transform_of(config), expected_records(records), *args)


def test_images_and_failures_are_counted_alike(tmp_path):
    for name in ("a.jpg", "b.jpg", "large.jpg", "gone.jpg"):
        (tmp_path / name).write_bytes(bytes(20 if name == "large.jpg" else 3))
    config = InputConfig((str(tmp_path),))
    transform = transform_of(config, max_image_bytes=10)
    (tmp_path / "gone.jpg").unlink()
    run(transform, ["a.jpg", "b.jpg", "gone.jpg:read_error", "large.jpg:too_large"], describe=_describe)


def _describe(item):
    key = item.key.decode()
    return key if isinstance(item, ImageRecord) else f"{key}:{item.reason}"


def test_no_tasks_give_no_records():
    run(ReadImages([], InputConfig(("unused",))), [])


def test_records_can_be_read_without_their_counts(records):
    options = parse_beam_args([])
    with beam.Pipeline(runner=make_runner(options), options=options) as root:
        found = root | ReadImages.from_patterns(records, key_feature="id")
        assert_that(found, equal_to(expected_records(records)))


def test_the_tasks_of_plan_files_are_read(records, tmp_path):
    config = InputConfig((str(records),), key_feature="id")
    table = find_inputs(config)
    plan_files = write_plan(unlocked(tmp_path / "out"), "00000", Wave(table.path, 0, table.rows))
    run(ReadImages.from_plan(plan_files, config, 1 << 20, spread=False), expected_records(records))


def test_parts_are_spread_before_they_are_read(records):
    """Without it, runners such as Flink's leave a whole file to the one worker that has cut it into parts."""
    pipeline = beam.Pipeline()
    pipeline | transform_of(InputConfig((str(records),)))
    transforms = pipeline.to_runner_api().components.transforms.values()
    (spread,) = [transform for transform in transforms if transform.spec.urn == "beam:transform:reshuffle:v1"]
    (reading,) = [transform for transform in transforms if transform.unique_name.endswith("/Read")]
    assert list(reading.inputs.values()) == list(spread.outputs.values())


@pytest.mark.parametrize("spread", [True, False])
def test_spread_or_not_the_same_is_read(records, spread, monkeypatch):
    monkeypatch.setattr(read, "PART_BYTES", 1000)
    transform = transform_of(InputConfig((str(records),), key_feature="id"), spread=spread)
    run(transform, expected_records(records))


def test_patterns_may_be_paths(records):
    run(ReadImages.from_patterns(records, key_feature="id"), expected_records(records))
