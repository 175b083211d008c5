import errno
import json
import os
import re
import shutil

import numpy as np
import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import ModuleError, OutputError, UsageError
from pipeline.dataset.metadata import read_manifests, read_spec
from pipeline.engines import gpu
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transforms.registry import PRESETS
from pipeline.job.dry_run import preview
from pipeline.run import main
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from pipeline.testing import tiny_vectors
from tests.datasets import complete, contents, embed, make_photos, read_rows, snapshot


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
            f"--output={out} holds vectors of another kind ({difference}); name another directory, or replace "
            "the data set with --overwrite"
        )
        assert raised.value.exit_code == 2
        assert snapshot(out) == before

    def test_another_module_is_refused_even_when_there_is_nothing_to_do(
        self, photos, out, tiny_module, tiny_tf1_module
    ):
        embed(photos, out, tiny_module)
        with pytest.raises(OutputError, match=r"module_sha256: [0-9a-f]{64}, now [0-9a-f]{64}; signature: .*, now .*"):
            embed(photos, out, tiny_tf1_module)

    def test_a_difference_that_shows_after_loading_is_refused(self, photos, out, tiny_module, monkeypatch):
        """The engine, which `auto` chooses then."""
        embed(photos, out, tiny_module, engine="openvino")
        before = snapshot(out)
        make_photos(photos, 1, first=5)
        monkeypatch.setattr(gpu, "sees_gpu", lambda: True)
        with pytest.raises(OutputError, match=r"another kind \(engine: openvino, now tensorflow\)"):
            embed(photos, out, tiny_module, engine="auto")
        assert snapshot(out) == before

    def test_the_same_module_elsewhere_is_the_same(self, photos, out, tiny_module, tmp_path):
        embed(photos, out, tiny_module)
        shutil.copytree(tiny_module, tmp_path / "copy")
        assert embed(photos, out, tmp_path / "copy").skipped == 5

    def test_manifests_without_a_spec_are_refused(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        (out / "spec.json").unlink()
        with pytest.raises(
            OutputError, match=r"has manifests but no spec\.json.*put it back, or start from nothing with --overwrite"
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
        marker, new = read_manifests(str(out))
        assert (marker.is_marker, len(marker.replaces), new.embedded) == (True, 5, 5)
        assert [marker.wave, new.wave] == ["00005", "00006"]
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
    def test_a_store_that_cannot_be_used_is_said_before_anything_runs(
        self, photos, tiny_module, scheme, monkeypatch, caplog
    ):
        # As without Beam's extra for S3; with it, the test would look for credentials and the bucket on the network.
        monkeypatch.setattr("apache_beam.io.aws.clients.s3.boto3_client.boto3", None)
        with pytest.raises(OutputError, match=f"^--output={scheme}://b/x cannot be used: ") as error:
            pipeline.run(RunConfig.from_flags(input=photos, output=f"{scheme}://b/x", module=tiny_module))
        assert error.value.exit_code == 2
        assert caplog.messages == []


@pytest.fixture(scope="module")
def undeclared(tiny_module, tmp_path_factory):
    """The tiny module with a signature that follows no convention; nothing in it shows how it is fed."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(tiny_module))
    serve = loaded.signatures["serving_default"]
    call = tf.function(
        lambda x: {"y": serve(images=x)["default"]},
        input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32, name="x")],
        autograph=False,
    )
    wrapper = tf.Module()
    wrapper.loaded, wrapper.call = loaded, call
    directory = tmp_path_factory.mktemp("undeclared") / "module"
    tf.saved_model.save(wrapper, str(directory), signatures={"serving_default": call})
    return directory


class TestPreprocessing:
    def test_each_source_overrides_the_next(self, photos, out, undeclared, tmp_path):
        module = tmp_path / "module"
        shutil.copytree(undeclared, module)
        (module / "preprocess.yaml").write_text("preset: raw255\n")
        embed(photos, out, module)
        spec = read_spec(str(out)).preprocessing
        assert (spec.value_range, spec.mean) == ((0, 255), (0, 0, 0))
        embed(photos, tmp_path / "flag", module, preprocess="keras_caffe", channels="rgb", std="2,2,2")
        spec = read_spec(str(tmp_path / "flag")).preprocessing
        assert (spec.color, spec.mean, spec.std) == ("RGB", (103.939, 116.779, 123.68), (2, 2, 2))
        embed(photos, tmp_path / "range", module, input_range="-1,1", resize="pad", antialias=True)
        spec = read_spec(str(tmp_path / "range")).preprocessing
        assert (spec.input_range, spec.resize_mode, spec.antialias) == ((-1, 1), "pad", True)

    def test_the_vectors_are_those_of_the_transformed_pixels(self, photos, out, tiny_module):
        embed(photos, out, tiny_module, preprocess="keras_caffe")
        decoder = ImageDecoder(32, 32, transform=PRESETS.load("keras_caffe"))
        images = np.stack([decoder(path.read_bytes()) for path in sorted(photos.iterdir())])
        rows = read_rows(out)
        found = [rows[key]["embedding"] for key in sorted(rows)]
        np.testing.assert_allclose(found, tiny_vectors(images), rtol=1e-4, atol=1e-3)

    def test_another_preprocessing_is_another_kind_of_vectors(self, photos, out, tiny_module):
        embed(photos, out, tiny_module)
        before = snapshot(out)
        with pytest.raises(OutputError) as raised:
            embed(photos, out, tiny_module, preprocess="keras_tf")
        assert "(value_range: (0.0, 1.0), now (-1.0, 1.0); input_range: (0.0, 1.0), now (-1.0, 1.0))" in str(
            raised.value
        )
        assert (raised.value.exit_code, snapshot(out)) == (2, before)

    def test_a_module_that_shows_nothing_is_refused(self, photos, out, undeclared):
        with pytest.raises(ModuleError) as raised:
            embed(photos, out, undeclared)
        assert re.sub(r"\b\d\.\d+\b", "0.5", str(raised.value)) == (
            f"module {undeclared} does not say how its images are scaled, and its network does not show it: it has "
            "neither scaling constants at its input nor a batch normalisation after its first layer; the vectors of 5 "
            "images differ by 0.5 under hub, 0.5 under keras_tf, 0.5 under raw255 (relative L2); say "
            "--preprocess=hub|keras_tf|keras_torch|keras_caffe|raw255|imagenet|clip|siglip, or a file, as the network "
            "was trained"
        )
        assert (raised.value.exit_code, out.exists()) == (2, False)

    def test_a_data_set_of_an_older_program_goes_on_as_it_was(self, photos, out, undeclared):
        """Its spec lacks the fields of the transform, and decides for a module that shows nothing."""
        embed(photos, out, undeclared, preprocess="hub")
        spec = json.loads((out / "spec.json").read_text())
        known = ("height", "width", "decode", "exif_orientation", "color", "value_range", "resize")
        spec["preprocessing"] = {name: spec["preprocessing"][name] for name in known}
        (out / "spec.json").write_text(json.dumps(spec))
        make_photos(photos, 1, first=5)
        summary = embed(photos, out, undeclared)
        assert (summary.embedded, summary.skipped) == (1, 5)

    def test_a_file_gives_the_size_that_a_module_does_not_state(self, photos, out, tmp_path):
        import tensorflow as tf

        module = tmp_path / "module"
        signature = tf.function(lambda images: {"default": tf.reduce_mean(images, [1, 2])}, autograph=False)
        images = tf.TensorSpec([None, None, None, 3], tf.float32, "images")
        tf.saved_model.save(tf.Module(), str(module), signatures=signature.get_concrete_function(images))
        (module / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 24, 40]}}')
        embed(photos, out, module)
        spec = read_spec(str(out)).preprocessing
        assert (spec.height, spec.width, spec.crop_fraction) == (24, 40, 0.875)

    def test_a_file_for_another_size_is_refused(self, photos, out, tiny_module, tmp_path):
        (tmp_path / "my.yaml").write_text("image_size: [64, 64]\n")
        text = f"the file {tmp_path / 'my.yaml'} is for images of 64x64 pixels, and the module takes 32x32"
        with pytest.raises(ModuleError, match=re.escape(text)):
            embed(photos, out, tiny_module, preprocess=tmp_path / "my.yaml")

    def test_what_is_neither_a_preset_nor_a_file_is_refused(self, photos, out, tiny_module):
        with pytest.raises(
            UsageError, match=r"^--preprocess='clap' is unknown; expected one of .*; did you mean clip\?$"
        ):
            embed(photos, out, tiny_module, preprocess="clap")
