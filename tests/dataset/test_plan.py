import dataclasses
import datetime
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.failures import Failure
from pipeline.dataset import plan as plan_module
from pipeline.dataset.metadata import Manifest
from pipeline.dataset.plan import Wave, covered_inputs, make_plan, read_plan, write_plan
from pipeline.inputs.base import UNKNOWN_BYTES, InputFile
from tests.datasets import entry
from tests.inputs.tasks import image_task, record_task

STARTED = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC).isoformat()


def image(name, *, size_bytes=10, mtime_s=1.5):
    return InputFile(f"/in/{name}", name, "images", size_bytes, mtime_s)


def records(name, *, size_bytes=1000, mtime_s=1.5):
    return InputFile(f"/in/{name}", name, "tfrecord", size_bytes, mtime_s)


def manifest(wave, *inputs, **options):
    fields = {"outputs": (), "embedded": 0, "failed": 0, "failures_by_reason": {}, "seconds": 1.0, "versions": {}}
    return Manifest(wave=wave, inputs=inputs, started=STARTED, **{**fields, **options})


def failure(key, source=None, reason="truncated"):
    return Failure(key.encode(), source or f"/in/{key}", "read", reason, "made up")


def plan(files, manifests=(), *, wave_bytes=None, failures=()):
    return make_plan(files, manifests, wave_bytes=wave_bytes, failures=failures)


def paths(wave):
    return [file.path for file in covered_inputs(wave.tasks, None)]


class TestWhatIsMissing:
    def test_everything_at_first(self):
        found = plan([image("a"), records("b")])
        (wave,) = found.waves
        assert (wave.name, wave.retried, found.skipped) == ("00000", (), 0)
        assert sorted(paths(wave)) == ["/in/a", "/in/b"]

    def test_nothing_when_all_is_covered(self):
        found = plan(
            [image("a"), records("b")], [manifest("00000", entry("a"), entry("b", size_bytes=1000, records=7))]
        )
        assert (found.waves, found.skipped) == ((), 8)

    def test_a_file_that_changed_keeps_its_name(self):
        found = plan([InputFile("/in/a", "in/a", "images", 11, 1.5)], [manifest("00000", entry("a"))])
        (task,) = found.waves[0].tasks
        assert [file.name for file in task.files] == ["a"]

    def test_files_whose_keys_went_to_others_are_done_again(self, caplog):
        first, second = entry("a"), dataclasses.replace(entry("a"), path="/other/a")
        manifests = [manifest("00000", first)]
        other = InputFile("/other/a", "a", "images", 10, 1.5)
        assert plan([other], manifests).skipped == 0
        assert caplog.messages == [
            "1 files have keys that the data set has from other files, and replace their rows: a is from /other/a now, "
            "and was from /in/a; to keep both, name both inputs in one run"
        ]
        manifests.append(manifest("00001", second))
        both = [InputFile("/in/a", "in/a", "images", 10, 1.5), InputFile("/other/a", "other/a", "images", 10, 1.5)]
        found = plan(both, manifests)
        assert ([file.name for file in found.waves[0].tasks[0].files], found.skipped) == (["in/a"], 1)
        third = dataclasses.replace(entry("a"), name="in/a")
        assert plan(both, [*manifests, manifest("00002", third)]).waves == ()
        assert len(caplog.messages) == 1

    def test_names_say_nothing_where_keys_are_a_feature(self, caplog):
        other = InputFile("/other/r", "r", "tfrecord", 10, 1.5)
        manifests = [manifest("00000", entry("r", records=3), key_feature="id")]
        assert len(plan([other], manifests).waves) == 1
        manifests.append(manifest("00001", dataclasses.replace(entry("r"), path="/other/r"), key_feature="id"))
        assert plan([records("r", size_bytes=10), other], manifests).waves == ()
        assert caplog.messages == []

    @pytest.mark.parametrize("change", [{"size_bytes": 11}, {"mtime_s": 1.25}, {"mtime_s": 2.5}])
    def test_what_is_new_or_changed(self, change):
        files = [image("a"), image("b", **change), image("c")]
        found = plan(files, [manifest("00004", entry("a"), entry("b"))])
        (wave,) = found.waves
        assert (wave.name, paths(wave), found.skipped) == ("00005", ["/in/b", "/in/c"], 1)

    def test_the_newest_wave_says_how_a_file_was(self):
        manifests = [manifest("00000", entry("a")), manifest("00001", entry("a", size_bytes=20))]
        assert plan([image("a", size_bytes=20)], manifests).waves == ()
        assert len(plan([image("a")], manifests).waves) == 1

    def test_a_wave_that_another_replaces_covers_nothing(self):
        replaced = manifest("00000", entry("a"), entry("b"))
        found = plan([image("a"), image("b")], [replaced, manifest("00001", entry("b"), replaces=("00000",))])
        assert paths(found.waves[0]) == ["/in/a"]

    def test_an_input_that_is_gone_is_not_missed(self):
        assert plan([image("a")], [manifest("00000", entry("a"), entry("gone"))]).waves == ()


class TestGroups:
    def test_files_of_unknown_size_do_not_all_go_into_one_wave(self):
        files = [image(f"{index:02d}", size_bytes=0) for index in range(9)]
        assert [len(paths(wave)) for wave in plan(files, wave_bytes=4 * UNKNOWN_BYTES).waves] == [4, 4, 1]

    @given(
        sizes=st.lists(st.integers(1, 50), max_size=30),
        wave_bytes=st.none() | st.integers(1, 120),
    )
    @settings(deadline=None)
    def test_whole_files_up_to_the_limit(self, sizes, wave_bytes):
        files = [image(f"{index:02d}", size_bytes=size) for index, size in enumerate(sizes)]
        found = plan(files, wave_bytes=wave_bytes).waves
        assert [path for wave in found for path in paths(wave)] == [file.path for file in files]
        assert [wave.name for wave in found] == [f"{index:05d}" for index in range(len(found))]
        if wave_bytes is None:
            assert len(found) == bool(files)
            return
        totals = [[item.size_bytes for item in covered_inputs(wave.tasks, None)] for wave in found]
        assert all(sum(total) <= wave_bytes or len(total) == 1 for total in totals)
        assert all(sum(total) + next_one[0] > wave_bytes for total, next_one in itertools.pairwise(totals))

    def test_one_huge_file_is_one_wave(self):
        found = plan([records("a", size_bytes=1 << 40), records("b")], wave_bytes=1 << 30).waves
        assert [paths(wave) for wave in found] == [["/in/a"], ["/in/b"]]


class TestNames:
    """A folder was embedded, and then one above it, in which another file has the name."""

    FOLDER = (InputFile("/in/x/a", "x/a", "images", 10, 1.5), InputFile("/in/a", "a", "images", 10, 1.5))

    @pytest.mark.parametrize("mtime_s", [1.5, 2.5])
    def test_both_files_have_a_key_of_their_own_after_one_run(self, mtime_s, caplog):
        first = dataclasses.replace(entry("a"), path="/in/x/a", keys="name", mtime_s=mtime_s)
        found = plan(self.FOLDER, [manifest("00000", first)])
        (task,) = found.waves[0].tasks
        assert ([file.name for file in task.files], found.skipped) == (["x/a", "a"], 0)
        assert caplog.messages == []
        second = manifest("00001", *covered_inputs(found.waves[0].tasks, None))
        assert plan(self.FOLDER, [manifest("00000", first), second]).waves == ()

    def test_keys_from_a_feature_do_not_mind(self):
        files = (InputFile("/in/x/a", "x/a", "tfrecord", 10, 1.5), InputFile("/in/a", "a", "tfrecord", 10, 1.5))
        first = dataclasses.replace(entry("a"), path="/in/x/a", keys="feature")
        found = plan(files, [manifest("00000", first, key_feature="id")])
        assert [task.files[0].path for task in found.waves[0].tasks] == ["/in/a"]

    def test_images_have_their_names_beside_records_with_a_key_feature(self):
        first = dataclasses.replace(entry("a"), keys="name")
        changed = InputFile("/in/a", "in/a", "images", 11, 1.5)
        (task,) = plan([changed], [manifest("00000", first, key_feature="id")]).waves[0].tasks
        assert [file.name for file in task.files] == ["a"]

    def test_what_is_tried_again_keeps_its_name(self):
        done = manifest("00000", dataclasses.replace(entry("a"), keys="name"))
        file = InputFile("/in/a", "in/a", "images", 10, 1.5)
        (task,) = plan([file], [done], failures=[failure("a")]).waves[0].tasks
        assert [file.name for file in task.files] == ["a"]


class TestRetry:
    def test_images_by_their_files(self):
        files = [image("a"), image("b"), image("c@7.jpg")]
        done = [manifest("00000", *(entry(file.name) for file in files))]
        found = plan(files, done, failures=[failure("b"), failure("c@7.jpg")])
        assert found.waves == (Wave("00001", (image_task((files[1], files[2])),), ("/in/b", "/in/c@7.jpg")),)
        assert found.skipped == 1

    def test_records_and_ranges_by_their_addresses(self):
        file = records("a")
        done = [manifest("00000", entry("a", size_bytes=1000, records=9))]
        failures = [
            failure("a@500", "/in/a@500-600", "corrupt_record"),
            failure("key of the feature", "/in/a@20"),
            failure("a@900-1000", "/in/a@900-1000", "read_error"),
            failure("a@700", "/in/a@700-800", "read_error"),
        ]
        found = plan([file], done, failures=failures)
        assert found.waves[0].tasks == (
            record_task(file, ((900, 1000),), aligned=False),
            record_task(file, ((20, 21), (500, 600), (700, 800))),
        )
        assert found.waves[0].retried == ("/in/a@500-600", "/in/a@20", "/in/a@900-1000", "/in/a@700-800")
        assert found.skipped == 5
        assert covered_inputs(found.waves[0].tasks, None) == ()

    def test_a_compressed_file_that_broke_off(self):
        file = records("a.gz")
        done = [manifest("00000", entry("a.gz", size_bytes=1000))]
        between = failure("a.gz@5000", "/in/a.gz@5000-5000", "corrupt_record")
        unread = failure("a.gz@6000", "/in/a.gz@6000", "read_error")
        (task,) = plan([file], done, failures=[between, unread]).waves[0].tasks
        ((start, stop), (rest, end)) = task.ranges
        assert (start, stop, rest) == (5000, 5001, 6000)
        assert end > 1 << 60

    def test_a_file_of_which_nothing_was_read_is_read_as_a_new_one(self):
        file = records("a")
        done = [manifest("00000", entry("a", size_bytes=1000, records=1))]
        found = plan([file], done, failures=[failure("a", reason="read_error")])
        assert found.waves == (Wave("00001", (record_task(file),)),)
        assert found.skipped == 0

    def test_a_changed_file_is_read_anyway_and_a_file_that_is_gone_never(self):
        done = [manifest("00000", entry("a"), entry("gone"))]
        found = plan([image("a", size_bytes=11)], done, failures=[failure("a"), failure("gone")])
        assert found.waves == (Wave("00001", (image_task((image("a", size_bytes=11),)),)),)

    def test_comes_after_what_is_new(self):
        found = plan([image("a"), image("b")], [manifest("00000", entry("a"))], failures=[failure("a")])
        assert [(wave.name, wave.retried) for wave in found.waves] == [("00001", ()), ("00002", ("/in/a",))]

    def test_bytes_that_are_no_text(self):
        file = dataclasses.replace(image("x"), path="/in/\udcff", name="\udcff")
        failed = Failure(b"\xff", "/in/\udcff", "decode", "empty", "")
        done = [manifest("00000", dataclasses.replace(entry("x"), path="/in/\udcff", name="\udcff"))]
        assert plan([file], done, failures=[failed]).waves[0].retried == ("/in/\udcff",)


class TestWrittenPlan:
    NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff\n\r\u2028@"), min_size=1, max_size=8)
    FILES = st.builds(
        InputFile,
        path=NAMES,
        name=NAMES,
        kind=st.just("images"),
        size_bytes=st.integers(0, 1 << 62),
        mtime_s=st.floats(0, 1e10),
    )
    RANGES = st.none() | st.lists(st.tuples(st.integers(0, 9), st.integers(10, 1 << 62)), max_size=3).map(tuple)
    TASKS = st.builds(image_task, st.lists(FILES, max_size=3).map(tuple)) | st.builds(
        record_task, FILES, RANGES, st.booleans()
    )

    @given(tasks=st.lists(TASKS, max_size=6))
    @settings(deadline=None, max_examples=50)
    def test_survives_the_round_trip(self, tmp_path_factory, tasks):
        output = str(tmp_path_factory.getbasetemp() / "plans")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan_module, "TASKS_PER_PLAN_FILE", 2)
            written = write_plan(output, Wave("00000", tuple(tasks)))
        assert len(written) == -(-len(tasks) // 2)
        assert [task for path in written for task in read_plan(path)] == tasks

    def test_is_staged(self, tmp_path):
        (path,) = write_plan(str(tmp_path), Wave("00007", (record_task(records("a")),)))
        assert path == f"{tmp_path}/staging/00007/plan-00000.jsonl"

    def test_covers_the_files_that_are_read_whole(self):
        tasks = [record_task(records("a")), record_task(records("b"), ((0, 9),)), image_task((image("c"), image("d")))]
        images = tuple(dataclasses.replace(entry(name), keys="name") for name in "cd")
        file = entry("a", size_bytes=1000, records=0)
        assert covered_inputs(tasks, None) == (dataclasses.replace(file, keys="offset"), *images)
        assert covered_inputs(tasks, "id") == (dataclasses.replace(file, keys="feature"), *images)
