"""Modules that are an ONNX file or OpenVINO's IR, under the OpenVINO engine."""

import logging

import numpy as np
import pytest
from onnx import TensorProto

from pipeline.core.errors import ModuleError
from pipeline.engines.batches import in_batches
from pipeline.engines.choice import choose_engine
from pipeline.engines.parity import probe_images, relative_difference
from pipeline.engines.staging import stage_function
from pipeline.model_formats import onnx as onnx_format
from tests.engines.conftest import function_of
from tests.model_formats.models import CNN, SIZE, VIT, runtime_vectors, write_ir, write_onnx


def infer(engine, images):
    return in_batches(engine.infer, images, engine.batch_size)


def as_fed(images, layout, dtype):
    images = np.rint(images.astype(np.float64) * 255) if dtype == np.uint8 else images
    return np.ascontiguousarray((images.transpose(0, 3, 1, 2) if layout == "NCHW" else images).astype(dtype))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "number"),
    [("float32", TensorProto.FLOAT), ("float16", TensorProto.FLOAT16), ("uint8", TensorProto.UINT8)],
)
def test_inputs_of_every_layout_and_type_get_the_same_image(tmp_path, layout, dtype, number):
    path = write_onnx(tmp_path / "m" / "model.onnx", layout=layout, dtype=number)
    engine = choose_engine(function_of(path.parent, "auto"))
    images = probe_images(SIZE, SIZE)
    vectors = infer(engine, images)
    assert (engine.name, engine.dimension, vectors.dtype) == ("openvino", 8, np.float32)
    expected = runtime_vectors(path, as_fed(images, layout, np.dtype(dtype)))
    assert relative_difference(vectors, expected) < 1e-4
    assert 0 <= engine.parity < 1e-4


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_number_of_images_is_filled_up(tmp_path, batch):
    path = write_onnx(tmp_path / "m" / "model.onnx", batch=batch)
    images = probe_images(SIZE, SIZE)
    expected = runtime_vectors(write_onnx(tmp_path / "free.onnx"), as_fed(images, "NCHW", np.float32))
    engine = function_of(path.parent).load()
    assert relative_difference(infer(engine, images), expected) < 1e-4
    assert engine.parity < 1e-4


def test_networks_of_pytorchs_exporter(tmp_path):
    (tmp_path / "cnn").mkdir()
    (tmp_path / "cnn" / CNN.name).write_bytes(CNN.read_bytes())
    engine = function_of(tmp_path / "cnn").load()
    images = probe_images(64, 64)
    assert engine.dimension == 32
    assert relative_difference(infer(engine, images), runtime_vectors(CNN, as_fed(images, "NCHW", "float32"))) < 1e-4
    assert 0 < engine.parity < 1e-4


def test_an_output_is_chosen_by_its_name():
    engine = function_of(VIT.parent, output_key="image_embeds").load()
    images = probe_images(32, 32)
    expected = runtime_vectors(VIT, as_fed(images, "NCHW", np.float32), "image_embeds")
    assert engine.dimension == 24
    assert relative_difference(infer(engine, images), expected) < 1e-4


@pytest.mark.parametrize("pooling", ["mean", "cls", "flatten"])
def test_tokens_become_a_vector(pooling):
    engine = function_of(VIT.parent, output_key="last_hidden_state", pooling=pooling).load()
    images = probe_images(32, 32)
    tokens = runtime_vectors(VIT, as_fed(images, "NCHW", np.float32), "last_hidden_state").reshape(-1, 17, 24)
    expected = {"mean": tokens.mean(axis=1), "cls": tokens[:, 0], "flatten": tokens.reshape(-1, 17 * 24)}[pooling]
    assert relative_difference(infer(engine, images), expected) < 1e-4
    assert engine.parity < 1e-4


def test_a_training_switch_is_off(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx", switch="training")
    images = probe_images(SIZE, SIZE)
    expected = runtime_vectors(write_onnx(tmp_path / "free.onnx"), as_fed(images, "NCHW", np.float32))
    engine = function_of(path.parent).load()
    assert relative_difference(infer(engine, images), expected) < 1e-4
    assert engine.parity < 1e-4


def test_a_vector_has_the_same_bits_whatever_the_threads():
    images = probe_images(32, 32)
    one, three = (function_of(VIT.parent, output_key="image_embeds", threads=threads).load() for threads in (1, 3))
    np.testing.assert_array_equal(infer(one, images), infer(three, images))


def test_openvinos_ir_has_no_reference(tmp_path):
    path = write_ir(tmp_path / "ir" / "net.xml", CNN)
    engine = choose_engine(function_of(path.parent, "auto"))
    images = probe_images(64, 64)
    assert (engine.name, engine.parity) == ("openvino", None)
    expected = runtime_vectors(CNN, as_fed(images, "NCHW", np.float32))
    assert relative_difference(infer(engine, images), expected) < 1e-4


def test_without_onnx_runtime_the_difference_is_unknown(tmp_path, monkeypatch):
    import sys

    path = write_onnx(tmp_path / "m" / "model.onnx", size=24)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert function_of(path.parent).load().parity is None


def test_a_network_that_onnx_runtime_computes_otherwise_is_refused(tmp_path, monkeypatch):
    path = write_onnx(tmp_path / "m" / "model.onnx", size=28)
    reference = onnx_format.OnnxNetwork.reference_vectors
    monkeypatch.setattr(
        onnx_format.OnnxNetwork, "reference_vectors", lambda self, images: 1.001 * reference(self, images)
    )
    expected = r"OpenVINO's vectors of \S+ differ from ONNX Runtime's by 1\.0e-03, relative L2; expected at most 1e-04$"
    with pytest.raises(ModuleError, match=expected):
        choose_engine(function_of(path.parent, "auto"))


def test_tensorflow_does_not_compute_it(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx")
    expected = r"^--engine=tensorflow cannot compute \S+, which is an ONNX model; use --engine=openvino$"
    with pytest.raises(ModuleError, match=expected):
        choose_engine(function_of(path.parent, "tensorflow"))


def test_operators_that_openvino_lacks_are_named_without_advice(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx", domain="acme", operator="Magic")
    expected = r"^OpenVINO cannot convert signature 'default' of \S+: .* operations: acme\.Magic$"
    with pytest.raises(ModuleError, match=expected):
        choose_engine(function_of(path.parent, "auto"))


def test_a_network_with_a_state_is_refused(tmp_path):
    from pipeline.model_formats.openvino_package import import_openvino

    openvino = import_openvino()
    ops = openvino.opset13
    image = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="images")
    info = openvino.op.util.VariableInfo()
    info.data_shape, info.data_type, info.variable_id = openvino.PartialShape([1, 3]), openvino.Type.f32, "memory"
    variable = openvino.op.util.Variable(info)
    state = openvino.opset6.read_value(ops.constant(np.zeros((1, 3), np.float32)), variable)
    total = ops.add(ops.reduce_mean(image, ops.constant(np.array([2, 3]))), state)
    assign = openvino.opset6.assign(total, variable)
    model = openvino.Model([ops.result(total)], [assign], [image], "stateful")
    (tmp_path / "m").mkdir()
    openvino.save_model(model, tmp_path / "m" / "model.xml")
    with pytest.raises(ModuleError, match=r"keeps a state between calls; expected a model that computes each image"):
        function_of(tmp_path / "m").load()


def test_workers_take_the_conversion_of_the_launcher(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    function = function_of(VIT.parent, output_key="image_embeds")
    expected = infer(function.load(), probe_images(32, 32))
    staged = stage_function(function, str(tmp_path / "temp"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    np.testing.assert_array_equal(infer(staged.load(), probe_images(32, 32)), expected)
    assert [entry.name.partition("-")[0] for entry in (tmp_path / "cache").iterdir()] == ["openvino"]
    assert caplog.messages == []
