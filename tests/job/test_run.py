import errno
import gzip
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.console import run_command
from pipeline.core.errors import IntegrityError, ModuleError, OutputError, PipelineError, TooManyFailures, UsageError
from pipeline.dataset import metadata
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import read_manifests, read_spec
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import show_failure, verify
from pipeline.engines.tensorflow import TensorFlowEngine
from pipeline.job import run as job_run
from pipeline.job.dry_run import preview
from pipeline.run import main
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord, png_bytes
from pipeline.tfrecords.tfrecord import read_records
from tests.datasets import contents, embed, make_photos, read_rows, read_vectors


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def keep_stat(path: Path, data: bytes) -> None:
    """Replaces what a file holds so that neither its size nor its time tells."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {name: ((directory / name).stat().st_mtime_ns, data) for name, data in contents(directory).items()}


def complete(output: Path) -> bool:
    report = verify(str(output))
    return (report.problems, report.strays) == ((), ())


class TestWaves:
    def test_a_data_set_is_complete_and_nothing_else_is_left(self, photos, out, tiny_module):
        (photos / "broken.jpg").write_bytes(b"\xff\xd8 no more")
        summary = embed(photos, out, tiny_module)
        assert (summary.records, summary.embedded, summary.failed, summary.waves) == (6, 5, 1, 1)
        assert sorted(contents(out)) == [
            "embeddings/embeddings-00000-00000-of-00001.tfrecord",
            "failures/failures-00000-00000-of-00001.jsonl",
            "manifests/00000.json",
            "spec.json",
            "summary.json",
        ]
        assert json.loads((out / "summary.json").read_text())["embedded"] == 5
        assert complete(out)

    def test_many_waves_hold_the_same_as_one_and_load_the_module_once(
        self, photos, out, tiny_module, tmp_path, monkeypatch
    ):
        loads = []
        make = TensorFlowEngine.__init__
        monkeypatch.setattr(TensorFlowEngine, "__init__", lambda *args, **options: loads.append(make(*args, **options)))
        assert embed(photos, out, tiny_module, wave_bytes="1").waves == 5
        assert len(loads) == 1
        assert embed(photos, tmp_path / "one", tiny_module).waves == 1
        assert read_vectors(out) == read_vectors(tmp_path / "one")
        assert [manifest.wave for manifest in read_manifests(str(out))] == [f"0000{index}" for index in range(5)]

    def test_nothing_new_changes_no_file_but_the_summary(self, photos, out, tiny_module, monkeypatch):
        embed(photos, out, tiny_module, wave_bytes="1")
        before = snapshot(out)
        monkeypatch.delattr(TensorFlowEngine, "__init__")  # the module is not even loaded
        summary = embed(photos, out, tiny_module, wave_bytes="1")
        assert (summary.records, summary.skipped, summary.waves) == (0, 5, 0)
        after = snapshot(out)
        assert {name for name in before if after[name] != before[name]} == {"summary.json"}
        assert before.keys() == after.keys()

    def test_only_what_is_new_is_embedded(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        before = snapshot(out)
        make_photos(photos, 2, first=5)
        summary = embed(photos, out, tiny_module)
        assert (summary.records, summary.skipped) == (2, 5)
        assert len(read_rows(out)) == 7
        after = snapshot(out)
        assert {name for name in before if after[name] != before[name]} == {"summary.json"}
        assert complete(out)

    def test_what_changed_supersedes_and_can_be_compacted_away(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        old = read_vectors(out)
        (photos / "001.jpg").write_bytes(jpeg_bytes(seed=99))
        (photos / "002.jpg").write_bytes(b"")
        summary = embed(photos, out, tiny_module)
        assert (summary.records, summary.failed, summary.skipped) == (2, 1, 3)
        new = read_vectors(out)
        assert new.keys() == old.keys() - {b"002.jpg"}
        assert [key for key in new if new[key] != old[key]] == [b"001.jpg"]
        report = verify(str(out))
        assert (report.rows, report.superseded, report.failures) == (4, 2, 1)
        assert compact(str(out)).superseded == 2
        assert read_vectors(out) == new
        assert (verify(str(out)).rows, verify(str(out)).superseded) == (4, 0)
        assert embed(photos, out, tiny_module).records == 0

    def test_a_changed_tfrecord_with_fewer_records(self, tmp_path, out, tiny_module):
        examples = [make_example({"image/encoded": jpeg_bytes(seed=index)}) for index in range(4)]
        path = tmp_path / "a.tfrecord"
        path.write_bytes(make_tfrecord(examples))
        assert embed(path, out, tiny_module).records == 4
        path.write_bytes(make_tfrecord(examples[:2]))
        assert embed(path, out, tiny_module).records == 2
        assert len(read_rows(out)) == 2
        assert verify(str(out)).superseded == 4
        assert embed(path, out, tiny_module).skipped == 2

    def test_an_input_that_vanishes_after_planning_is_a_failure(self, photos, out, tiny_module, monkeypatch):
        write_plan = job_run.write_plan

        def vanish(*args):
            (photos / "003.jpg").unlink(missing_ok=True)
            return write_plan(*args)

        monkeypatch.setattr(job_run, "write_plan", vanish)
        summary = embed(photos, out, tiny_module)
        assert (summary.embedded, summary.failures_by_reason) == (4, {"read_error": 1})
        (failure,) = read_failures(str(out))
        assert (failure.key, failure.message) == (b"003.jpg", "No such file or directory")

    def test_an_input_that_is_gone_keeps_its_row(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        (photos / "003.jpg").unlink()
        assert embed(photos, out, tiny_module).skipped == 4
        assert len(read_rows(out)) == 5

    def test_a_data_set_in_the_current_directory(self, photos, out, tiny_module, monkeypatch):
        out.mkdir()
        monkeypatch.chdir(out)
        for _ in range(2):
            embed(photos, ".", tiny_module, wave_bytes="1")
            make_photos(photos, 1, first=5)
            assert complete(out)
        assert len(read_rows(out)) == 6


class TestOneSpace:
    @pytest.mark.parametrize(
        ("flags", "difference"),
        [
            ({"normalize": "l2"}, "normalization: none, now l2"),
            ({"decode": "fast"}, "decode: exact, now fast"),
            ({"exif_orientation": True}, "exif_orientation: False, now True"),
        ],
    )
    def test_a_run_that_would_mix_is_refused(self, photos, out, tiny_module, flags, difference):
        embed(photos, out, tiny_module)
        before = snapshot(out)
        with pytest.raises(OutputError) as raised:
            embed(photos, out, tiny_module, **flags)
        assert str(raised.value) == (
            f"--output={out} holds vectors of another kind ({difference}); name another directory, or start it anew "
            "with --overwrite"
        )
        assert raised.value.exit_code == 2
        assert snapshot(out) == before

    def test_another_module_is_refused_even_when_there_is_nothing_to_do(
        self, photos, out, tiny_module, tiny_tf1_module
    ):
        embed(photos, out, tiny_module)
        with pytest.raises(OutputError, match=r"module_sha256: [0-9a-f]{64}, now [0-9a-f]{64}; signature: .*, now .*"):
            embed(photos, out, tiny_tf1_module)

    def test_the_same_module_elsewhere_is_the_same(self, photos, out, tiny_module, tmp_path):
        embed(photos, out, tiny_module)
        shutil.copytree(tiny_module, tmp_path / "copy")
        assert embed(photos, out, tmp_path / "copy").skipped == 5

    def test_manifests_without_a_spec_are_refused(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        (out / "spec.json").unlink()
        with pytest.raises(
            OutputError, match=r"has manifests but no spec\.json.*put it back, or start anew with --overwrite"
        ):
            embed(photos, out, tiny_module)
        assert embed(photos, out, tiny_module, overwrite=True).records == 5

    def test_overwriting_starts_anew_and_leaves_what_is_not_its_own(self, photos, out, tiny_module):
        embed(photos, out, tiny_module, wave_bytes="1")
        (out / "notes.txt").write_text("mine")
        summary = embed(photos, out, tiny_module, overwrite=True, normalize="l2")
        assert (summary.records, summary.skipped) == (5, 0)
        assert (out / "notes.txt").exists()
        assert read_spec(str(out)).normalization == "l2"
        assert len(read_rows(out)) == 5
        assert complete(out)

    def test_overwriting_keeps_the_old_until_the_new_can_begin(self, photos, out, tiny_module, tmp_path):
        embed(photos, out, tiny_module)
        before = snapshot(out)
        damaged = tmp_path / "damaged"
        shutil.copytree(tiny_module, damaged)
        for path in (damaged / "variables").iterdir():
            path.unlink()
        with pytest.raises(ModuleError):
            embed(photos, out, damaged, overwrite=True)
        assert snapshot(out) == before


class TestOutput:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("photos/000.jpg", "is a file; expected a directory"),
            ("photos/000.jpg/out", "cannot be written: .*Not a directory"),
            ("/proc/out", "cannot be written: .*"),
            ("/sys/kernel/out", "cannot be written: .*"),
        ],
    )
    def test_a_directory_that_cannot_be_is_one_line_and_code_2(self, photos, tiny_module, name, text, capsys):
        assert main([f"--input={photos}", f"--module={tiny_module}", f"--output={photos.parent / name}"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: --output=")
        assert re.search(text, error)

    def test_rows_of_other_formats_are_refused(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        message = "holds its rows as tfrecord, and this run would write parquet,tfrecord; name the same --output_format"
        with pytest.raises(OutputError, match=message):
            embed(photos, out, tiny_module, output_format=["tfrecord", "parquet"])
        assert embed(photos, out, tiny_module, output_format=["parquet"], overwrite=True).embedded

    def test_another_key_feature_is_told(self, photos, out, tiny_module, caplog):
        embed(photos, out, tiny_module)
        embed(photos, out, tiny_module, key_feature="id")
        assert f"{out} has rows that were read with no --key_feature; they keep their keys" in caplog.messages

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"normalize": "l2"}, "holds vectors of another kind"),
            ({"output_format": ["parquet"]}, "holds its rows as tfrecord"),
        ],
    )
    def test_a_dry_run_refuses_what_a_run_does(self, photos, out, tiny_module, options, text):
        embed(photos, out, tiny_module)
        before = contents(out)
        config = RunConfig.from_flags(input=photos, module=tiny_module, output=out, dry_run=True, **options)
        with pytest.raises(OutputError, match=text):
            preview(config)
        with pytest.raises(
            UsageError, match=r"^dry_run writes nothing, so there is no summary; call pipeline.job.dry_run"
        ):
            pipeline.run(config)
        assert contents(out) == before

    def test_a_dry_run_to_a_file(self, photos, tiny_module):
        config = RunConfig.from_flags(input=photos, module=tiny_module, output=photos / "000.jpg", dry_run=True)
        with pytest.raises(OutputError, match=r"is a file; expected a directory"):
            preview(config)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
    def test_a_directory_that_may_not_be_written(self, photos, out, tiny_module, monkeypatch, number, capsys):
        """Whoever runs the tests may be root, who may write anywhere: the refusal is made up."""

        def refuse(path):
            raise OSError(number, os.strerror(number), path)

        monkeypatch.setattr(filesystem, "create", refuse)
        assert main([f"--input={photos}", f"--module={tiny_module}", f"--output={out}"]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert line.startswith(f"error: --output={out} cannot be written: ")
        assert os.strerror(number) in line

    def test_a_locked_data_set_is_refused_and_the_lock_can_be_stolen(self, photos, out, tiny_module):
        with DatasetLock(str(out)):
            with pytest.raises(OutputError, match=r"is being written by .* take over with --steal_lock"):
                embed(photos, out, tiny_module)
            assert embed(photos, out, tiny_module, steal_lock=True).records == 5

    @pytest.mark.parametrize("scheme", ["foo", "s3"])
    def test_a_store_that_cannot_be_used_is_said_before_anything_runs(self, photos, tiny_module, scheme, caplog):
        with pytest.raises(OutputError, match=f"^--output={scheme}://b/x cannot be used: ") as error:
            pipeline.run(RunConfig.from_flags(input=photos, output=f"{scheme}://b/x", module=tiny_module))
        assert error.value.exit_code == 2
        assert caplog.messages == []

    def test_a_wave_without_any_record(self, tmp_path, photos, out, tiny_module, caplog):
        embed(photos, out, tiny_module)
        (photos / "empty.tfrecord").write_bytes(b"")
        caplog.clear()
        assert embed(photos, out, tiny_module).records == 0
        assert not [message for message in caplog.messages if "is not checked" in message]
        assert embed(photos, out, tiny_module).waves == 0

    def test_a_run_that_was_robbed_does_not_commit(self, photos, out, tiny_module, monkeypatch):
        write_plan = job_run.write_plan

        def rob(output, wave):
            if wave.name == "00002":
                with DatasetLock(output, steal=True):
                    pass
            return write_plan(output, wave)

        monkeypatch.setattr(job_run, "write_plan", rob)
        with pytest.raises(
            OutputError, match=r"was taken over and given back while this run went on; nothing more is committed$"
        ):
            embed(photos, out, tiny_module, wave_bytes="1")
        assert [manifest.wave for manifest in read_manifests(str(out))] == ["00000", "00001"]
        monkeypatch.undo()
        assert embed(photos, out, tiny_module).records == 3
        assert complete(out)

    def test_records_that_were_lost_end_the_run_and_do_not_count(self, photos, out, tiny_module, monkeypatch):
        monkeypatch.setattr(job_run, "_records_read", lambda result: 6)
        with pytest.raises(IntegrityError, match="wave 00000: 6 records were read, but 5 embedded and 0 failed"):
            embed(photos, out, tiny_module)
        assert read_manifests(str(out)) == ()
        monkeypatch.undo()
        assert embed(photos, out, tiny_module).embedded == 5
        assert complete(out)

    def test_a_full_disk_in_the_middle_is_one_line_and_resumable(self, photos, out, tiny_module, monkeypatch, capsys):
        create = filesystem.create

        def full(path):
            if "staging/00002/embeddings" in path:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return create(path)

        monkeypatch.setattr(filesystem, "create", full)
        args = [
            f"--input={photos}",
            f"--module={tiny_module}",
            f"--output={out}",
            "--wave_bytes=1",
            "--engine=tensorflow",
        ]
        assert main(args) == 1
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("error: wave 00002 failed and was not committed: ")
        assert "No space left on device" in error.splitlines()[-1]
        assert error.splitlines()[-1].endswith("start again to go on from there")
        assert "Traceback" not in error
        monkeypatch.undo()
        assert main(args) == 0
        assert len(read_rows(out)) == 5
        assert complete(out)


@pytest.fixture(scope="module")
def moody_module(tmp_path_factory):
    """A module that gives NaN for reddish images, infinity for greenish ones, and else the image's mean colour."""
    import tensorflow as tf

    def serve(images):
        means = tf.reduce_mean(images, [1, 2])
        red, green = means[:, 0:1] > 0.9, means[:, 1:2] > 0.9
        dark = tf.where(tf.reduce_max(means, 1, keepdims=True) < 0.1, 0.0, means)
        return {"default": tf.where(red, float("nan"), tf.where(green, float("-inf"), dark))}

    module = tf.Module()
    spec = tf.TensorSpec([None, 32, 32, 3], tf.float32, name="images")
    directory = tmp_path_factory.mktemp("moody")
    tf.saved_model.save(
        module,
        str(directory),
        signatures={"serving_default": tf.function(serve, autograph=False, input_signature=[spec])},
    )
    return directory


def plain_png(red, green, blue):
    import cv2

    return cv2.imencode(".png", np.full((40, 40, 3), (blue, green, red), np.uint8))[1].tobytes()


def test_vectors_that_are_no_numbers_are_failures_and_odd_ones_are_counted(tmp_path, out, moody_module):
    photos = tmp_path / "photos"
    photos.mkdir()
    colours = {"nan": (255, 0, 0), "inf": (0, 255, 0), "zero": (0, 0, 0), "zero2": (0, 0, 0), "blue": (0, 0, 255)}
    for name, colour in colours.items():
        (photos / f"{name}.png").write_bytes(plain_png(*colour))
    summary = embed(photos, out, moody_module, batch_size=8)
    assert summary.failures_by_reason == {"nonfinite": 2}
    assert (summary.embedded, summary.zero_vectors, summary.duplicate_vectors) == (3, 2, 1)
    assert sorted(read_rows(out)) == [b"blue.png", b"zero.png", b"zero2.png"]
    assert {(failure.key, failure.stage, failure.message) for failure in read_failures(str(out))} == {
        (b"nan.png", "embed", "3 of 3 values of the vector are NaN or infinite"),
        (b"inf.png", "embed", "3 of 3 values of the vector are NaN or infinite"),
    }
    assert complete(out)


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

        monkeypatch.setattr(job_run, "check_records", lambda files: None)
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


HOSTILE_KEYS = [
    b"line\nbreak",
    b"nul\0byte",
    b"../../../etc/passwd",
    b"x" * 10_000,
    b"\xff\xfe invalid",
    "ünï".encode(),
]


def test_keys_and_features_survive_in_both_formats(tmp_path, out, tiny_module):
    path = tmp_path / "a.tfrecord"
    examples = [
        {"image/encoded": jpeg_bytes(seed=index), "id": key, "label": index} for index, key in enumerate(HOSTILE_KEYS)
    ]
    del examples[3]["label"]
    broken = {"image/encoded": b"broken", "id": b"broken\n\xff\0"}
    path.write_bytes(make_tfrecord(make_example(example) for example in (*examples, broken)))
    flags = {"key_feature": "id", "passthrough": "label", "output_format": "tfrecord,parquet", "compression": "gzip"}
    summary = embed(path, out, tiny_module, **flags)
    assert (summary.embedded, summary.failed) == (6, 1)
    rows = read_rows(out)
    assert sorted(rows) == sorted(HOSTILE_KEYS)
    assert [rows[key].get("label") for key in HOSTILE_KEYS] == [[0], [1], [2], None, [4], [5]]
    assert [failure.key for failure in read_failures(str(out))] == [b"broken\n\xff\0"]
    (parquet,) = (out / "embeddings").glob("*.parquet")
    table = pq.read_table(parquet)
    columns = {row["key"]: row for row in table.to_pylist()}
    assert columns.keys() == {key.decode("utf-8", "backslashreplace") for key in HOSTILE_KEYS}
    for key in HOSTILE_KEYS:
        row = columns[key.decode("utf-8", "backslashreplace")]
        assert row["embedding"] == rows[key]["embedding"]
        assert row["label"] == rows[key].get("label")
    assert json.loads(table.schema.metadata[b"spec.json"]) == json.loads((out / "spec.json").read_text())
    assert all(data[:2] == b"\x1f\x8b" for name, data in contents(out).items() if name.endswith(".gz"))
    assert complete(out)
    path.touch()
    assert embed(path, out, tiny_module, **flags).records == 7
    assert verify(str(out)).superseded == 6


def test_too_many_failures_keep_what_was_embedded(photos, out, tiny_module):
    (photos / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(
        TooManyFailures, match=r"1 of 6 records failed \(1 not_an_image\), more than --max_failure_rate=0.1"
    ):
        embed(photos, out, tiny_module, max_failure_rate=0.1)
    assert len(read_rows(out)) == 5
    assert json.loads((out / "summary.json").read_text())["failed"] == 1


def test_a_pipeline_that_fails_for_a_reason_of_its_own_shows_it(photos, out, tiny_module, monkeypatch):
    monkeypatch.setattr("pipeline.beam.write.commit_wave", lambda *args: 1 / 0)
    with pytest.raises(Exception, match="division by zero") as raised:
        pipeline.run(
            RunConfig.from_flags(input=str(photos), module=str(tiny_module), output=str(out), engine="tensorflow")
        )
    assert not isinstance(raised.value, PipelineError)
    assert metadata.read_manifests(str(out)) == ()


def test_the_exit_code_of_a_pipeline_error_reaches_the_shell(capsys):
    def fail(args):
        raise IntegrityError("one\nline")

    assert run_command(fail, []) == 1
    assert capsys.readouterr().err == "error: one line\n"
