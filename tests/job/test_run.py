import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.core.console import run_command
from pipeline.core.errors import IntegrityError
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.reader import read_failures
from pipeline.dataset.verify import verify
from pipeline.engines.tensorflow import TensorFlowEngine
from pipeline.job import waves as job_waves
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord
from tests.datasets import complete, contents, embed, make_photos, read_rows, read_vectors, snapshot


class TestWaves:
    def test_a_data_set_is_complete_and_nothing_else_is_left(self, photos, out, tiny_module):
        (photos / "broken.jpg").write_bytes(b"\xff\xd8 no more")
        summary = embed(photos, out, tiny_module)
        assert (summary.records, summary.embedded, summary.failed, summary.waves) == (6, 5, 1, 1)
        assert sorted(contents(out)) == [
            "embeddings/embeddings-00000-00000-of-00001.tfrecord",
            "failures/failures-00000-00000-of-00001.jsonl",
            "manifests/00000-inputs-00000.parquet",
            "manifests/00000.json",
            "schema.pbtxt",
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
        write_plan = job_waves.write_plan

        def vanish(*args):
            (photos / "003.jpg").unlink(missing_ok=True)
            return write_plan(*args)

        monkeypatch.setattr(job_waves, "write_plan", vanish)
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
    (parquet,) = (out / "embeddings-parquet").glob("*")
    assert {path.suffix for path in (out / "embeddings").iterdir()} == {".gz"}
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


def test_the_exit_code_of_a_pipeline_error_reaches_the_shell(capsys):
    def fail(args):
        raise IntegrityError("one\nline")

    assert run_command(fail, []) == 1
    assert capsys.readouterr().err == "error: one line\n"
