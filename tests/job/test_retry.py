import errno
import gzip
import os

import numpy as np
import pytest

from pipeline.core.errors import TooManyFailures
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import show_failure, verify
from pipeline.job import checks as job_checks
from pipeline.storage import filesystem
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord, png_bytes
from pipeline.tfrecords.tfrecord import read_records
from tests.datasets import complete, embed, keep_stat, read_rows


class TestRetry:
    def test_without_the_flag_what_failed_is_done(self, photos, out, tiny_module):
        (photos / "bad.jpg").write_bytes(b"bad")
        embed(photos, out, tiny_module)
        assert embed(photos, out, tiny_module).skipped == 6

    def test_images(self, photos, out, tiny_module):
        good = jpeg_bytes(seed=50)
        for name in ("mended.jpg", "bad.jpg"):
            (photos / name).write_bytes(bytes(len(good)))
        assert embed(photos, out, tiny_module).failed == 2
        keep_stat(photos / "mended.jpg", good)
        summary = embed(photos, out, tiny_module, retry_failed=True)
        assert (summary.records, summary.embedded, summary.skipped) == (2, 1, 5)
        assert b"mended.jpg" in read_rows(out)
        assert [failure.key for failure in read_failures(str(out))] == [b"bad.jpg"]
        assert embed(photos, out, tiny_module, retry_failed=True).records == 1
        report = verify(str(out))
        assert (report.rows, report.failures, report.problems, report.strays) == (6, 1, (), ())

    def test_records_and_damaged_ranges(self, tmp_path, out, tiny_module):
        images = [png_bytes(seed=index) for index in range(6)]
        good = make_tfrecord(make_example({"image/encoded": image}) for image in images)
        path = tmp_path / "a.tfrecord"
        path.write_bytes(good)
        with path.open("rb") as file:
            offsets = [item.offset for item in read_records(file)]
        damaged = bytearray(good)
        damaged[offsets[2] + 30 : offsets[3] + 3] = bytes(offsets[3] - offsets[2] - 27)
        path.write_bytes(damaged)
        summary = embed(path, out, tiny_module)
        assert (summary.embedded, summary.failures_by_reason) == (4, {"corrupt_record": 1})
        (failure,) = read_failures(str(out))
        assert failure.source == f"{path}@{offsets[2]}-{offsets[4]}"
        keep_stat(path, good)
        summary = embed(path, out, tiny_module, retry_failed=True)
        assert (summary.records, summary.embedded) == (2, 2)
        assert sorted(read_rows(out)) == sorted(f"a.tfrecord@{offset}".encode() for offset in offsets)
        assert list(read_failures(str(out))) == []
        assert embed(path, out, tiny_module, retry_failed=True).records == 0

    def test_a_record_of_a_compressed_file(self, tmp_path, out, tiny_module):
        examples = [make_example({"image/encoded": jpeg_bytes(seed=index)}) for index in range(3)]
        examples[1] = make_example({"image/encoded": b"no image"})
        path = tmp_path / "a.tfrecord.gz"
        path.write_bytes(gzip.compress(make_tfrecord(examples)))
        assert embed(path, out, tiny_module).failed == 1
        summary = embed(path, out, tiny_module, retry_failed=True)
        assert (summary.records, summary.failed, summary.skipped) == (1, 1, 2)

    @pytest.mark.parametrize("cut", [20, 2_000])
    def test_a_compressed_file_that_breaks_off_goes_on_failing(self, tmp_path, out, tiny_module, cut):
        examples = [make_example({"image/encoded": png_bytes(seed=index)}) for index in range(8)]
        path = tmp_path / "a.tfrecord.gz"
        path.write_bytes(gzip.compress(make_tfrecord(examples))[:-cut])
        first = embed(path, out, tiny_module)
        assert first.failures_by_reason == {"corrupt_record": 1}
        for _ in range(2):
            assert embed(path, out, tiny_module, retry_failed=True).failures_by_reason == {"corrupt_record": 1}
        assert len(read_rows(out)) == first.embedded
        assert verify(str(out)).failures == 1

    def test_read_errors_of_images_and_whole_files(self, photos, out, tiny_module, monkeypatch):
        records = make_tfrecord(make_example({"image/encoded": jpeg_bytes(seed=index)}) for index in range(10, 14))
        (photos / "r.tfrecord").write_bytes(records)
        open_read = filesystem.open_read

        def fail(path):
            # The command looks into the first TFRecord before it begins; the workers are threads.
            if path.endswith(("001.jpg", "r.tfrecord")):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return open_read(path)

        monkeypatch.setattr(filesystem, "open_read", fail)
        summary = embed(photos, out, tiny_module)
        assert (summary.embedded, summary.failures_by_reason) == (4, {"read_error": 2})
        monkeypatch.undo()
        assert embed(photos, out, tiny_module).skipped == 6
        summary = embed(photos, out, tiny_module, retry_failed=True)
        assert (summary.records, summary.embedded, summary.skipped) == (5, 5, 4)
        assert len(read_rows(out)) == 9
        assert list(read_failures(str(out))) == []
        assert embed(photos, out, tiny_module, retry_failed=True).skipped == 9

    @pytest.mark.parametrize("seed", range(4))
    def test_read_errors_in_parts_of_a_file(self, tmp_path, out, tiny_module, monkeypatch, seed):
        """Some of the parts that the runner cuts a file into cannot be read, at once or after a while."""
        from pipeline.beam import read

        rng = np.random.default_rng(seed)
        monkeypatch.setattr(read, "PART_BYTES", 5_000)
        monkeypatch.setattr("pipeline.tfrecords.byte_window.CHUNK_BYTES", 2_000)
        path = tmp_path / "a.tfrecord"
        images = [png_bytes(seed=index) for index in range(24)]
        path.write_bytes(make_tfrecord(make_example({"image/encoded": image}) for image in images))
        with path.open("rb") as file:
            keys = sorted(f"a.tfrecord@{item.offset}".encode() for item in read_records(file))
        open_read = filesystem.open_read

        def break_off(name):
            file = open_read(name)
            if name == str(path) and rng.random() < 0.7:
                left = int(rng.integers(0, 6_000))

                class Breaking:
                    def read(self, size=-1):
                        nonlocal left
                        left -= max(size, 0)
                        if left < 0:
                            raise OSError(errno.EIO, os.strerror(errno.EIO))
                        return file.read(size)

                    def __getattr__(self, attribute):
                        return getattr(file, attribute)

                    def __enter__(self):
                        return self

                    def __exit__(self, *error):
                        file.close()

                return Breaking()
            return file

        monkeypatch.setattr(job_checks, "check_records", lambda files: None)
        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "open_read", break_off)
            first = embed(path, out, tiny_module)
        assert set(first.failures_by_reason) <= {"read_error"}
        embed(path, out, tiny_module, retry_failed=True)
        assert sorted(read_rows(out)) == keys
        assert list(read_failures(str(out))) == []
        assert complete(out)


class TestDamage:
    def test_fail_ends_the_run(self, tmp_path, out, tiny_module):
        path = tmp_path / "a.tfrecord"
        good = make_tfrecord(make_example({"image/encoded": jpeg_bytes(seed=index)}) for index in range(3))
        path.write_bytes(good[:100] + b"damage" + good[106:])
        with pytest.raises(TooManyFailures, match=r"a\.tfrecord@0-\d+: .*, and --on_corrupt=fail"):
            embed(path, out, tiny_module, on_corrupt="fail", max_failure_rate=0.9)
        assert read_manifests(str(out)) == ()
        assert embed(path, out, tiny_module, on_corrupt="skip").embedded == 2

    def test_what_failed_can_be_shown(self, tmp_path, out, tiny_module):
        photos = tmp_path / "in"
        photos.mkdir()
        (photos / "bad.jpg").write_bytes(b"no image")
        good = make_tfrecord(
            make_example({"image/encoded": image, "id": f"id{i}"})
            for i, image in enumerate([png_bytes(), b"bad record"])
        )
        (photos / "a.tfrecord").write_bytes(good + b"damage")
        (photos / "b.tfrecord.gz").write_bytes(gzip.compress(good + b"more damage"))
        embed(photos, out, tiny_module)
        failures = {failure.key.decode(): failure for failure in read_failures(str(out))}
        second = next(key for key in failures if key.startswith("a.tfrecord@") and failures[key].stage == "decode")
        offset = int(second.rpartition("@")[2])
        expected = {
            "bad.jpg": b"no image",
            second: b"bad record",
            f"a.tfrecord@{len(good)}": b"damage",
            f"b.tfrecord.gz@{offset}": b"bad record",
            f"b.tfrecord.gz@{len(good)}": b"more damage",
        }
        assert failures.keys() == expected.keys()
        for key, data in expected.items():
            show_failure(str(out), key, str(tmp_path / "shown"))
            assert (tmp_path / "shown").read_bytes() == data
