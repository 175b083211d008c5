import errno
import gzip
import io
import itertools
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.failures import Failure
from pipeline.core.records import Feature, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs import image_files as image_files_module
from pipeline.inputs import tfrecord_files
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import cut_task, find_kind, make_tasks, read_part
from pipeline.storage import filesystem
from pipeline.testing import make_example, make_tfrecord
from tests.inputs.tasks import image_task, record_task

EXAMPLES = [make_example({"image/encoded": bytes([i]) * (i + 1), "id": f"id{i}", "label": i}) for i in range(6)]
RECORDS = make_tfrecord(EXAMPLES)
OFFSETS = list(itertools.accumulate((len(make_tfrecord([example])) for example in EXAMPLES), initial=0))


def task_positions(task):
    return find_kind(task.kind).positions(task)


def task_bytes(task):
    return find_kind(task.kind).size_bytes(task)


def read(task, start=0, stop=None, *, claim=lambda _: True, max_image_bytes=1000, end=None, **options):
    part = TaskPart(task, start, task_positions(task) if stop is None else stop)
    settings = ReadSettings(InputConfig(("unused",), **options), max_image_bytes)
    return list(read_part(part, claim, settings, end=end))


def record_file(path, content, **options):
    Path(path).write_bytes(content)
    return record_task(InputFile(str(path), Path(path).name, "tfrecord", len(content), 0.0), **options)


def image_files(*paths):
    return image_task(tuple(InputFile(str(path), Path(path).name, "images", 0, 0.0) for path in paths))


class TestPickling:
    @pytest.mark.parametrize(
        "task",
        [
            image_task(tuple(InputFile(f"/photos/{i}\udcff é.jpg", f"{i}", "images", i, i / 3) for i in range(64))),
            record_task(
                InputFile("a.tfrecord", "a", "tfrecord", 1 << 40, 0.0), ranges=((1, 5), (7, 1 << 40)), aligned=False
            ),
            ReadTask("images", ()),
        ],
        ids=["images", "records", "empty"],
    )
    def test_a_task_stays_the_same(self, task):
        assert pickle.loads(pickle.dumps(task)) == task

    def test_a_wave_of_a_million_files_is_small(self):
        names = [f"{i // 1000:03d}/photo{i:06d}.jpg" for i in range(64)]
        task = image_task(
            tuple(InputFile(f"/data/photos/{n}", n, "images", 3000 + i, 1.7e9 + i / 7) for i, n in enumerate(names))
        )
        assert len(pickle.dumps(task)) < 25 * len(names)


class TestImages:
    def test_each_file_is_a_record(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"one")
        (tmp_path / "b.jpg").write_bytes(b"")
        assert read(image_files(tmp_path / "a.jpg", tmp_path / "b.jpg")) == [
            ImageRecord(b"a.jpg", f"{tmp_path}/a.jpg", b"one"),
            ImageRecord(b"b.jpg", f"{tmp_path}/b.jpg", b""),
        ]

    def test_neighbours_of_a_file_that_cannot_be_read_are(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"one")
        (tmp_path / "dir.jpg").mkdir()
        (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
        names = ["gone.jpg", "dir.jpg", "loop.jpg", "nul\0.jpg", "a.jpg"]
        found = read(image_files(*(tmp_path / name for name in names)))
        assert [(item.stage, item.reason) for item in found[:-1]] == [("read", "read_error")] * 4
        assert [item.message.split(": ")[-1] for item in found[:-1]] == [
            "No such file or directory",
            "Is a directory",
            "Too many levels of symbolic links",
            "embedded null byte",
        ]
        assert [item.key.decode() for item in found] == names
        assert found[0].source == f"{tmp_path}/gone.jpg"
        assert found[-1].image == b"one"

    def test_what_is_no_file_is_a_failure(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        (failure,) = read(image_files(tmp_path / "pipe.jpg"))
        assert (failure.reason, failure.message) == ("read_error", "not a regular file")

    def test_permission_denied(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)

        monkeypatch.setattr(filesystem, "open_read", refuse)
        expected = Failure(b"a.jpg", f"{tmp_path}/a.jpg", "read", "read_error", "Permission denied")
        assert read(image_files(tmp_path / "a.jpg")) == [expected]

    def test_a_file_that_breaks_off_while_it_is_read(self, tmp_path, monkeypatch):
        class Broken(io.BytesIO):
            def read(self, size=-1):
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(filesystem, "open_read", lambda path: Broken())
        (failure,) = read(image_files(tmp_path / "a.jpg"))
        assert (failure.reason, failure.message) == ("read_error", "Input/output error")

    @pytest.mark.parametrize(("size", "fits"), [(10, True), (11, False)])
    def test_large_files(self, tmp_path, size, fits):
        (tmp_path / "a.jpg").write_bytes(bytes(size))
        (item,) = read(image_files(tmp_path / "a.jpg"), max_image_bytes=10)
        if fits:
            assert item.image == bytes(size)
        else:
            message = "the file has more than the 10 bytes that --max_image_bytes allows"
            assert item == Failure(b"a.jpg", f"{tmp_path}/a.jpg", "read", "too_large", message)

    def test_keys_are_the_bytes_of_the_name(self, tmp_path):
        name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
        (tmp_path / name).write_bytes(b"x")
        (record,) = read(image_files(tmp_path / name))
        assert record.key == b"caf\xe9.jpg"

    def test_remote_files_come_in_order_with_their_failures(self, gcs):
        names = [f"gs://bucket/{i:02d}.jpg" for i in range(2 * image_files_module.REMOTE_READERS + 3)]
        for name in names[:-2]:
            gcs.write(name, name.encode())
        found = read(image_files(*names))
        assert [item.source for item in found] == names
        assert [item.image for item in found[:-2]] == [name.encode() for name in names[:-2]]
        assert all(isinstance(item, Failure) and "404" in item.message for item in found[-2:])
        assert all("\n" not in item.message for item in found[-2:])


def breaking_file(directory, monkeypatch):
    """Returns a task of nine large records, of whose file only the first 300,000 bytes can be read, and its bytes."""

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() + size > 300_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    content = make_tfrecord(make_example({"image/encoded": bytes(100_000)}) for _ in range(9))
    task = record_file(directory / "a", content)
    monkeypatch.setattr(filesystem, "open_read", lambda path: Broken(content))
    return task, content


class TestRecords:
    def test_keys_are_addresses(self, tmp_path):
        found = read(record_file(tmp_path / "a.tfrecord", RECORDS))
        assert [item.key.decode() for item in found] == [f"a.tfrecord@{offset}" for offset in OFFSETS[:-1]]
        assert [item.source for item in found] == [f"{tmp_path}/a.tfrecord@{offset}" for offset in OFFSETS[:-1]]
        assert [item.image for item in found] == [bytes([i]) * (i + 1) for i in range(6)]

    def test_features_are_those_asked_for(self, tmp_path):
        found = read(record_file(tmp_path / "a", RECORDS), key_feature="id", passthrough=("label",))
        assert [item.key for item in found] == [f"id{i}".encode() for i in range(6)]
        assert [item.features for item in found] == [{"label": Feature("int64", (i,))} for i in range(6)]
        (failure, *_) = read(record_file(tmp_path / "a", RECORDS), image_feature="image")
        assert failure.message == "no image: the record has no feature 'image'"

    def test_a_compressed_file_gives_the_same(self, tmp_path):
        plain = read(record_file(tmp_path / "a.gz", gzip.compress(RECORDS)))
        (tmp_path / "d").mkdir()
        other = read(record_file(tmp_path / "d" / "a", RECORDS))
        assert [item.image for item in plain] == [item.image for item in other]
        assert [item.key for item in plain] == [item.key.replace(b"a@", b"a.gz@") for item in other]

    def test_an_empty_file_holds_nothing(self, tmp_path):
        assert read(record_file(tmp_path / "a", b"")) == []
        assert read(record_file(tmp_path / "a.gz", gzip.compress(b""))) == []

    def test_damage_costs_the_damaged_record_only(self, tmp_path):
        damaged = bytearray(RECORDS)
        damaged[OFFSETS[2] + 20] ^= 1
        found = read(record_file(tmp_path / "a", bytes(damaged)))
        assert [item.key.decode() for item in found] == [f"a@{offset}" for offset in OFFSETS[:-1]]
        failure = found[2]
        assert (failure.stage, failure.reason) == ("read", "corrupt_record")
        assert failure.source == f"{tmp_path}/a@{OFFSETS[2]}-{OFFSETS[3]}"
        size = OFFSETS[3] - OFFSETS[2]
        assert failure.message.startswith(f"no readable record in {size} bytes: the checksum of the record's")
        assert all(isinstance(item, ImageRecord) for i, item in enumerate(found) if i != 2)

    @pytest.mark.parametrize("wrap", [bytes, gzip.compress])
    def test_a_file_that_ends_early(self, tmp_path, wrap):
        name = "a.gz" if wrap is gzip.compress else "a"
        found = read(record_file(tmp_path / name, wrap(RECORDS[:-3])))
        assert [isinstance(item, ImageRecord) for item in found] == [True] * 5 + [False]
        assert found[-1].key.decode() == f"{name}@{OFFSETS[5]}"
        assert found[-1].reason == "corrupt_record"

    def test_a_compressed_file_that_breaks_off(self, tmp_path):
        found = read(record_file(tmp_path / "a.gz", gzip.compress(RECORDS)[:-20]))
        assert found[-1].reason == "corrupt_record"
        assert "gzip" in found[-1].message

    def test_not_a_tfrecord_at_all(self, tmp_path):
        (failure,) = read(record_file(tmp_path / "a", b"nonsense" * 100))
        assert (failure.key, failure.source) == (b"a@0", f"{tmp_path}/a@0-800")
        (failure,) = read(record_file(tmp_path / "a.gz", b"not gzip"))
        assert (failure.key, failure.reason) == (b"a.gz@0", "corrupt_record")

    def test_a_file_that_vanished(self, tmp_path):
        task = record_file(tmp_path / "a", RECORDS)
        (tmp_path / "a").unlink()
        expected = Failure(b"a", f"{tmp_path}/a", "read", "read_error", "No such file or directory")
        assert read(task) == [expected]
        second_half = read(task, OFFSETS[3])
        assert [(item.key.decode(), item.source) for item in second_half] == [
            (f"a@{OFFSETS[3]}-{OFFSETS[-1]}", f"{tmp_path}/a@{OFFSETS[3]}-{OFFSETS[-1]}")
        ]

    def test_a_file_that_vanished_before_it_was_planned(self, tmp_path):
        task = record_task(InputFile(f"{tmp_path}/a", "a", "tfrecord", 0, 0.0))
        (failure,) = read(task)
        assert failure.reason == "read_error"

    def test_reading_breaks_off_behind_a_few_records(self, tmp_path, monkeypatch):
        task, large = breaking_file(tmp_path, monkeypatch)
        found = read(task, max_image_bytes=1 << 20)
        assert [type(item) for item in found[:-1]] == [ImageRecord] * (len(found) - 1)
        size = len(large) // 9
        failure = found[-1]
        assert (failure.key.decode(), failure.reason) == (f"a@{size * (len(found) - 1)}", "read_error")

    def test_what_another_worker_was_given_is_its_own(self, tmp_path, monkeypatch):
        """A part that was cut while it was read ends there, also for what a failure says was not read."""
        task, large = breaking_file(tmp_path, monkeypatch)

        def failures(end):
            found = read(task, max_image_bytes=1 << 20, end=lambda: end)
            return [item.source for item in found if isinstance(item, Failure)]

        position = int(failures(len(large))[0].rpartition("@")[2].partition("-")[0])
        assert failures(800_000) == [f"{tmp_path}/a@{position}-800000"]
        assert failures(position) == []

    def test_a_record_that_is_too_long_is_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tfrecord_files.tfrecord, "MAX_RECORD_BYTES", 50)
        content = make_tfrecord([EXAMPLES[0], make_example({"image/encoded": bytes(200)}), EXAMPLES[1]])
        found = read(record_file(tmp_path / "a", content), max_image_bytes=100)
        assert [type(item) for item in found] == [ImageRecord, Failure, ImageRecord]
        assert found[1].reason == "too_large"
        assert found[1].message.endswith("more than --max_image_bytes leaves room for")


class TestParts:
    """A task is read in parts, wherever it is cut."""

    @given(cuts=st.lists(st.integers(0, len(RECORDS)), max_size=6), damage=st.integers(0, len(RECORDS) - 1))
    @settings(deadline=None, max_examples=60)
    def test_any_parts_of_a_file_make_the_whole(self, tmp_path_factory, cuts, damage):
        content = bytearray(RECORDS)
        content[damage] ^= 0xFF
        task = record_file(tmp_path_factory.getbasetemp() / "parts", bytes(content))
        edges = [0, *sorted(cuts), len(RECORDS)]
        parts = [item for start, stop in itertools.pairwise(edges) if start < stop for item in read(task, start, stop)]
        assert parts == read(task)

    def test_parts_of_a_list_of_images(self, tmp_path):
        paths = [tmp_path / f"{i}.jpg" for i in range(5)]
        for path in paths:
            path.write_bytes(path.name.encode())
        task = image_files(*paths)
        assert task_positions(task) == 5
        assert read(task, 0, 2) + read(task, 2, 2) + read(task, 2, 5) == read(task)

    def test_chosen_ranges(self, tmp_path):
        ranges = ((OFFSETS[1], OFFSETS[2]), (OFFSETS[4], OFFSETS[6]))
        task = record_file(tmp_path / "a", RECORDS, ranges=ranges)
        whole = read(record_task(task.files[0]))
        assert task_positions(task) == 2
        assert task_bytes(task) == OFFSETS[2] - OFFSETS[1] + OFFSETS[6] - OFFSETS[4]
        assert read(task) == [whole[1], whole[4], whole[5]]
        assert read(task, 1, 2) == [whole[4], whole[5]]
        packed = record_file(tmp_path / "a.gz", gzip.compress(RECORDS), ranges=ranges)
        assert task_positions(packed) == 1
        assert [item.image for item in read(packed)] == [whole[1].image, whole[4].image, whole[5].image]

    def test_a_range_does_not_have_the_damage_behind_it(self, tmp_path):
        content = bytearray(RECORDS)
        content[OFFSETS[2] + 20] ^= 0xFF
        whole = read(record_file(tmp_path / "a", bytes(content)))
        assert whole[2].reason == "corrupt_record"
        ranges = ((OFFSETS[1], OFFSETS[1] + 1), (OFFSETS[2], OFFSETS[3]))
        assert read(record_file(tmp_path / "a", bytes(content), ranges=ranges)) == whole[1:3]
        assert read(record_file(tmp_path / "a", bytes(content), ranges=ranges[:1])) == whole[1:2]

    def test_ranges_of_a_compressed_file_may_overlap(self, tmp_path):
        ranges = ((0, OFFSETS[3]), (OFFSETS[1], OFFSETS[2]), (OFFSETS[2], OFFSETS[4]))
        packed = record_file(tmp_path / "a.gz", gzip.compress(RECORDS), ranges=ranges)
        assert len(read(packed)) == 4

    @given(part_bytes=st.integers(1, 2 * len(RECORDS)))
    @settings(deadline=None, max_examples=30)
    def test_a_task_is_cut_into_parts_of_about_the_bytes_asked_for(self, part_bytes):
        task = record_task(InputFile("a", "a", "tfrecord", len(RECORDS), 0.0))
        parts = list(cut_task(task, part_bytes))
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == len(RECORDS)
        sizes = [part.bytes_between(part.start, part.stop) for part in parts]
        assert len(parts) == 1 or min(sizes) >= part_bytes
        assert max(sizes) < 2 * part_bytes or part_bytes > len(RECORDS)

    def test_what_cannot_be_cut_is_one_part(self):
        packed = record_task(InputFile("a.gz", "a.gz", "tfrecord", 1000, 0.0))
        empty = record_task(InputFile("a", "a", "tfrecord", 0, 0.0))
        image = image_task((InputFile("a", "a", "images", 1000, 0.0),))
        for task in (packed, empty, image):
            assert [(part.start, part.stop) for part in cut_task(task, 10)] == [(0, 1)]

    def test_bytes(self, tmp_path):
        assert task_bytes(record_file(tmp_path / "a", RECORDS)) == len(RECORDS)
        task = image_task((InputFile("a", "a", "images", 3, 0.0), InputFile("b", "b", "images", 4, 0.0)))
        assert task_bytes(task) == 7
        assert task_positions(record_task(InputFile("a", "a", "tfrecord", 0, 0.0))) == 1

    def test_bytes_of_what_is_not_known_before_it_is_read(self):
        packed = record_task(InputFile("a.gz", "a.gz", "tfrecord", 100, 0.0), ((50, 1 << 62),))
        assert task_bytes(packed) == 100
        assert task_bytes(image_task((InputFile("gs://b/a", "gs://b/a", "images", 0, 0.0),))) == 256 << 10

    def test_reading_ends_where_a_claim_is_refused(self, tmp_path, gcs):
        claimed = []

        def claim(position):
            claimed.append(position)
            return len(claimed) <= 2

        task = record_file(tmp_path / "a", RECORDS)
        assert [item.key.decode() for item in read(task, claim=claim)] == [f"a@{offset}" for offset in OFFSETS[:2]]
        assert claimed == OFFSETS[:3]
        for name in [str(tmp_path / "a"), "gs://bucket/none"]:
            claimed.clear()
            assert len(read(image_files(*[name] * 5), claim=claim)) == 2
            assert claimed == [0, 1, 2]
        assert read(record_file(tmp_path / "a.gz", b""), claim=lambda _: False) == []


def test_what_is_found_is_what_is_read(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"jpeg")
    (tmp_path / "a.tfrecord").write_bytes(RECORDS)
    config = InputConfig((str(tmp_path),))
    found = [item for task in make_tasks(find_inputs(config)) for item in read(task)]
    assert [item.key.decode() for item in found] == [*(f"a.tfrecord@{offset}" for offset in OFFSETS[:-1]), "b.jpg"]
