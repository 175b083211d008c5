import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import OutputError
from pipeline.inputs.base import UNKNOWN_BYTES, InputFile
from tests.dataset.planning import Covered, failure, image, plan_of, records
from tests.datasets import entry


@pytest.fixture
def covered(tmp_path):
    return Covered(tmp_path / "out")


class TestWhatIsMissing:
    def test_everything_at_first(self):
        found = plan_of([image("a"), records("b")])
        (wave,) = found.waves
        assert (wave.paths, wave.retried, found.skipped) == (["/in/a", "/in/b"], [], 0)

    def test_nothing_when_all_is_covered(self, covered):
        covered.add("00000", entry("a"), entry("b", size_bytes=1000, records=7))
        found = covered.plan([image("a"), records("b")])
        assert (found.waves, found.skipped) == ([], 8)

    def test_a_file_that_changed_keeps_its_name(self, covered):
        found = covered.add("00000", entry("a")).plan([InputFile("/in/a", "in/a", "images", 11, 1.5)])
        assert found.waves[0].names == ["a"]

    def test_files_whose_keys_went_to_others_are_done_again(self, covered, caplog):
        first, second = entry("a"), dataclasses.replace(entry("a"), path="/other/a")
        covered.add("00000", first)
        other = InputFile("/other/a", "a", "images", 10, 1.5)
        assert covered.plan([other]).skipped == 0
        assert caplog.messages == [
            "1 files have keys that the data set has from other files, and replace their rows: a is from /other/a now, "
            "and was from /in/a; to keep both, name both inputs in one run"
        ]
        covered.add("00001", second)
        both = [InputFile("/in/a", "in/a", "images", 10, 1.5), InputFile("/other/a", "other/a", "images", 10, 1.5)]
        found = covered.plan(both)
        assert ([wave.names for wave in found.waves], found.skipped) == ([["in/a"]], 1)
        covered.add("00002", dataclasses.replace(entry("a"), name="in/a"))
        assert covered.plan(both).waves == []
        assert len(caplog.messages) == 1

    def test_names_say_nothing_where_keys_are_a_feature(self, covered, caplog):
        other = InputFile("/other/r", "r", "tfrecord", 10, 1.5)
        covered.add("00000", entry("r", records=3), key_feature="id")
        assert len(covered.plan([other]).waves) == 1
        covered.add("00001", dataclasses.replace(entry("r"), path="/other/r"), key_feature="id")
        assert covered.plan([records("r", size_bytes=10), other]).waves == []
        assert caplog.messages == []

    @pytest.mark.parametrize("change", [{"size_bytes": 11}, {"mtime_s": 1.25}, {"mtime_s": 2.5}])
    def test_what_is_new_or_changed(self, covered, change):
        covered.add("00004", entry("a"), entry("b"))
        found = covered.plan([image("a"), image("b", **change), image("c")])
        (wave,) = found.waves
        assert (wave.paths, found.skipped) == (["/in/b", "/in/c"], 1)

    def test_the_newest_wave_says_how_a_file_was(self, covered):
        covered.add("00000", entry("a")).add("00001", entry("a", size_bytes=20))
        assert covered.plan([image("a", size_bytes=20)]).waves == []
        assert len(covered.plan([image("a")]).waves) == 1

    def test_the_newest_wave_is_the_one_with_the_greatest_number(self, covered):
        covered.add("99999", entry("a")).add("100000", entry("a", size_bytes=20))
        assert covered.plan([image("a", size_bytes=20)]).waves == []

    def test_a_wave_that_another_replaces_covers_nothing(self, covered):
        covered.add("00000", entry("a"), entry("b")).add("00001", entry("b"), replaces=("00000",))
        assert covered.plan([image("a"), image("b")]).waves[0].paths == ["/in/a"]

    def test_an_input_that_is_gone_is_not_missed(self, covered):
        assert covered.add("00000", entry("a"), entry("gone")).plan([image("a")]).waves == []

    def test_names_that_are_no_text(self, covered):
        names = ["\udcff", "\uf7ff", "x\n\udc80"]
        covered.add("00000", *map(entry, names))
        files = [image(name) for name in (*names, "\udc81")]
        assert covered.plan(files).waves[0].files == files[-1:]

    def test_an_order_by_path_whatever_the_order_of_the_inputs(self):
        names = [f"{index:03d}" for index in range(200)]
        assert plan_of([image(name) for name in reversed(names)]).waves[0].names == names

    def test_a_damaged_table_is_refused(self, covered):
        covered.add("00000", entry("a"))
        path = covered.output / "manifests/00000-inputs-00000.parquet"
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(OutputError, match=r"00000-inputs-00000\.parquet cannot be read: .*pipeline\.verify"):
            covered.plan([image("a")])


def total_bytes(files):
    return sum(file.size_bytes for file in files)


class TestGroups:
    def test_files_of_unknown_size_do_not_all_go_into_one_wave(self):
        files = [image(f"{index:02d}", size_bytes=0) for index in range(9)]
        assert [len(wave.files) for wave in plan_of(files, wave_bytes=4 * UNKNOWN_BYTES).waves] == [4, 4, 1]

    @given(
        sizes=st.lists(st.integers(1, 50), max_size=30),
        wave_bytes=st.none() | st.integers(1, 120),
        wave_files=st.integers(1, 40),
    )
    @settings(deadline=None, max_examples=50)
    def test_whole_files_up_to_the_limits(self, sizes, wave_bytes, wave_files):
        files = [image(f"{index:02d}", size_bytes=size) for index, size in enumerate(sizes)]
        found = [wave.files for wave in plan_of(files, wave_bytes=wave_bytes, wave_files=wave_files).waves]
        assert [file for wave in found for file in wave] == files
        assert all(1 <= len(wave) <= wave_files for wave in found)
        limit = sum(sizes) if wave_bytes is None else wave_bytes
        assert all(total_bytes(wave) <= limit or len(wave) == 1 for wave in found)
        for wave, (first, *_) in itertools.pairwise(found):  # the next file would not have fitted
            assert len(wave) == wave_files or total_bytes(wave) + first.size_bytes > limit

    def test_waves_go_on_over_the_batches_of_a_table(self, monkeypatch):
        monkeypatch.setattr("pipeline.storage.tables.GROUP_ROWS", 3)
        files = [image(f"{index:02d}", size_bytes=10) for index in range(10)]
        assert [len(wave.files) for wave in plan_of(files, wave_bytes=40).waves] == [4, 4, 2]
        assert [len(wave.files) for wave in plan_of(files, wave_files=7).waves] == [7, 3]

    def test_one_huge_file_is_one_wave(self):
        found = plan_of([records("a", size_bytes=1 << 40), records("b")], wave_bytes=1 << 30).waves
        assert [wave.paths for wave in found] == [["/in/a"], ["/in/b"]]

    def test_no_files_are_no_wave(self):
        assert plan_of([]).waves == []


class TestNames:
    """A folder was embedded, and then one above it, in which another file has the name."""

    FOLDER = (InputFile("/in/x/a", "x/a", "images", 10, 1.5), InputFile("/in/a", "a", "images", 10, 1.5))

    @pytest.mark.parametrize("mtime_s", [1.5, 2.5])
    def test_both_files_have_a_key_of_their_own_after_one_run(self, covered, mtime_s, caplog):
        first = dataclasses.replace(entry("a"), path="/in/x/a", keys="name", mtime_s=mtime_s)
        found = covered.add("00000", first).plan(self.FOLDER)
        (wave,) = found.waves
        assert ({file.path: file.name for file in wave.files}, found.skipped) == ({"/in/x/a": "x/a", "/in/a": "a"}, 0)
        assert caplog.messages == []
        second = [
            dataclasses.replace(entry(file.name), path=file.path, keys="name", mtime_s=file.mtime_s)
            for file in wave.files
        ]
        assert covered.add("00001", *second).plan(self.FOLDER).waves == []

    def test_keys_from_a_feature_do_not_mind(self, covered):
        files = (InputFile("/in/x/a", "x/a", "tfrecord", 10, 1.5), InputFile("/in/a", "a", "tfrecord", 10, 1.5))
        first = dataclasses.replace(entry("a"), path="/in/x/a", keys="feature")
        found = covered.add("00000", first, key_feature="id").plan(files)
        assert [task.files[0].path for task in found.waves[0].tasks] == ["/in/a"]

    def test_images_have_their_names_beside_records_with_a_key_feature(self, covered):
        covered.add("00000", dataclasses.replace(entry("a"), keys="name"), key_feature="id")
        changed = InputFile("/in/a", "in/a", "images", 11, 1.5)
        assert covered.plan([changed]).waves[0].names == ["a"]

    def test_what_is_tried_again_keeps_its_name(self, covered):
        covered.add("00000", dataclasses.replace(entry("a"), keys="name"))
        file = InputFile("/in/a", "in/a", "images", 10, 1.5)
        assert covered.plan([file], failures=[failure("a")]).waves[0].names == ["a"]
