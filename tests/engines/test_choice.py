import logging

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.engines import gpu
from pipeline.engines.choice import choose_engine
from pipeline.engines.gpu import sees_gpu
from pipeline.engines.parity import probe_images
from pipeline.model_formats.openvino_package import OpenVINOError
from pipeline.testing import tiny_vectors
from tests.engines.conftest import function_of


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "sees_gpu", lambda: False)


def test_auto_takes_openvino_where_it_agrees(tiny_module, caplog):
    caplog.set_level(logging.INFO)
    chosen = choose_engine(function_of(tiny_module, "auto"))
    assert chosen.name == "openvino"
    assert 0 <= chosen.parity < 1e-4
    assert caplog.messages == []


def test_auto_takes_tensorflow_where_it_sees_a_gpu(tiny_module, monkeypatch, caplog):
    monkeypatch.setattr(gpu, "sees_gpu", lambda: True)
    caplog.set_level(logging.INFO)
    chosen = choose_engine(function_of(tiny_module, "auto"))
    assert (chosen.name, chosen.parity) == ("tensorflow", None)
    said = [record.message for record in caplog.records if record.name.startswith("pipeline.")]
    assert said == ["engine tensorflow: it sees a GPU"]


@pytest.mark.parametrize(("asked", "expected"), [(None, 128), (40, 40)])
def test_tensorflow_on_a_gpu_wants_full_batches_from_one_thread(tiny_module, monkeypatch, asked, expected):
    monkeypatch.setattr(gpu, "sees_gpu", lambda: True)
    engine = function_of(tiny_module, "tensorflow", batch_size=asked).load()
    assert (engine.batch_size, engine.concurrent_calls, engine.dtype) == (expected, 1, "float32")
    images = probe_images(32, 32)
    np.testing.assert_allclose(engine.infer(images), tiny_vectors(images), rtol=1e-5, atol=1e-6)


def test_auto_takes_tensorflow_and_says_why_where_openvino_fails(write_module, caplog):
    import tensorflow as tf

    directory = write_module(lambda images: tf.math.lgamma(1 + images[:, 0, :8, 0]))
    chosen = choose_engine(function_of(directory, "auto"))
    assert chosen.name == "tensorflow"
    # TensorFlow has its own to say where the module was made.
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("pipeline"))
    assert message.startswith("engine tensorflow, because openvino does not work: OpenVINO cannot convert signature")
    assert message.endswith("Lgamma")


def test_auto_takes_tensorflow_where_the_cache_cannot_be_written(tiny_module, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "file"))
    assert choose_engine(function_of(tiny_module, "auto")).name == "tensorflow"
    assert "cannot be stored in the cache directory" in caplog.text


def test_openvino_on_request_fails_rather_than_being_replaced(write_module):
    import tensorflow as tf

    directory = write_module(lambda images: tf.math.lgamma(1 + images[:, 0, :8, 0]))
    with pytest.raises(OpenVINOError, match="Lgamma; use --engine=tensorflow"):
        choose_engine(function_of(directory, "openvino"))


def test_tensorflow_on_request(tiny_module):
    assert choose_engine(function_of(tiny_module, "tensorflow")).name == "tensorflow"


def test_bfloat16_leaves_no_choice(tiny_module, monkeypatch):
    monkeypatch.setattr(gpu, "sees_gpu", lambda: True)
    spec = function_of(tiny_module, "auto", precision="bfloat16")
    try:
        assert choose_engine(spec).name == "openvino"
    except ModuleError as error:
        assert "does not compute in bfloat16" in str(error)  # noqa: PT017 - not every CPU has it


def test_a_machine_without_gpu_devices_has_no_gpu(tmp_path):
    assert not sees_gpu(tmp_path)


def test_tensorflow_is_asked_where_there_is_a_device(tmp_path, monkeypatch):
    import tensorflow as tf

    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert sees_gpu(tmp_path)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert not sees_gpu(tmp_path)
