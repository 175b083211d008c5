"""What holds for every engine."""

import threading

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.engines.choice import choose_engine
from pipeline.engines.conversion import converted
from pipeline.engines.parity import probe_images, relative_difference
from pipeline.model_formats.openvino_package import OpenVINOError, import_openvino
from pipeline.testing import TINY_DIMENSION, tiny_vectors
from tests.engines.conftest import function_of

ENGINES = ("openvino", "tensorflow")


def infer(engine, images):
    size = engine.batch_size
    return np.concatenate([engine.infer(images[i : i + size]) for i in range(0, len(images), size)])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("module", ["tiny_module", "tiny_tf1_module"])
def test_vectors_are_those_of_the_module(name, module, request):
    engine = function_of(request.getfixturevalue(module), name).load()
    images = probe_images(32, 32)
    assert (engine.name, engine.dimension) == (name, TINY_DIMENSION)
    vectors = infer(engine, images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, tiny_vectors(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_a_vector_depends_on_its_image_only(name, convolution_engine):
    engine = convolution_engine(name)
    images = np.random.default_rng(0).random((engine.batch_size + 3, 96, 96, 3), np.float32)
    images[:4] = probe_images(96, 96)
    vectors = infer(engine, images)
    order = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_array_equal(infer(engine, images[order]), vectors[order])
    for i in (0, 3, len(images) - 1):
        np.testing.assert_array_equal(engine.infer(images[i : i + 1]), vectors[i : i + 1])


@pytest.mark.parametrize("name", ENGINES)
def test_threads_share_an_engine_and_get_the_same_bits(name, convolution_engine):
    engine = convolution_engine(name)
    images = probe_images(96, 96)
    expected = infer(engine, images)
    results = {}

    def work(thread):
        results[thread] = [infer(engine, images) for _ in range(2)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(5))
    for vectors in results.values():
        np.testing.assert_array_equal(vectors, [expected] * 2)


def test_openvino_returns_the_same_bits_with_any_number_of_threads(convolutions):
    images = probe_images(96, 96)
    one, three = (function_of(convolutions, threads=threads).load() for threads in (1, 3))
    np.testing.assert_array_equal(infer(one, images), infer(three, images))


def test_engines_agree(convolution_engine):
    images = np.random.default_rng(2).random((8, 96, 96, 3), np.float32)
    vectors, reference = (infer(convolution_engine(name), images) for name in ENGINES)
    assert relative_difference(vectors, reference) < 1e-4


def test_openvino_knows_its_difference_from_tensorflow(convolutions, convolution_engine):
    engine, reference = convolution_engine("openvino"), converted(function_of(convolutions)).reference
    expected = relative_difference(infer(engine, probe_images(96, 96)), reference)
    assert engine.parity == pytest.approx(expected, rel=0.06)  # it is rounded to two digits
    assert engine.parity < 1e-4


def test_openvino_refuses_a_module_that_it_computes_otherwise(write_module):
    import tensorflow as tf

    directory = write_module(lambda images: images[:, 0, :8, 0] + tf.random.uniform([tf.shape(images)[0], 8]))
    expected = r"vectors of .* differ from TensorFlow's by .*, relative L2; expected at most 1e-04; use --engine=tensor"
    with pytest.raises(OpenVINOError, match=expected):
        function_of(directory).load()


def test_bfloat16_is_near_where_the_cpu_has_it_and_refused_elsewhere(convolutions, convolution_engine):
    function = function_of(convolutions, precision="bfloat16")
    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ModuleError, match="does not compute in bfloat16; use --precision=float32"):
            function.load()
        return
    images = probe_images(96, 96)
    vectors = infer(function.load(), images)
    assert 1e-4 < relative_difference(vectors, infer(convolution_engine("openvino"), images)) < 0.3


@pytest.mark.parametrize("name", ENGINES)
def test_a_module_that_is_not_whole_is_refused(name, tiny_module, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((tiny_module / "saved_model.pb").read_bytes())
    with pytest.raises(ModuleError, match=r"cannot be loaded: .*; is the module complete"):
        function_of(tmp_path, name).load()


def test_tensorflow_traces_once_whatever_the_batches(tiny_module):
    engine = function_of(tiny_module, "tensorflow").load()
    for count in (1, 5, engine.batch_size):
        assert engine.infer(np.zeros((count, 32, 32, 3), np.float32)).shape == (count, TINY_DIMENSION)
    assert engine.trace_count == 1


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("signature", ["uint8", "nchw", "batch", "training", "default", "pooled", "labels"])
def test_odd_signatures(name, signature, odd_module):
    engine = function_of(odd_module, name, signature_name=signature).load()
    images = np.rint(probe_images(32, 32) * 255) / np.float32(255)
    np.testing.assert_allclose(infer(engine, images), tiny_vectors(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_a_fixed_batch_is_filled_up_and_an_image_has_the_same_bits_wherever_it_is(name, odd_module):
    engine = function_of(odd_module, name, signature_name="batch").load()
    assert engine.batch_size == 4
    images = probe_images(32, 32)
    vectors = engine.infer(images)
    np.testing.assert_array_equal(engine.infer(images[::-1].copy()), vectors[::-1])
    for index in range(4):
        np.testing.assert_array_equal(engine.infer(images[index : index + 1]), vectors[index : index + 1])


def test_a_table_that_the_output_needs_is_for_tensorflow(odd_module):
    with pytest.raises(
        OpenVINOError, match=r"its output 'default' depends on a lookup table; use --engine=tensorflow$"
    ):
        function_of(odd_module, "openvino", signature_name="from_table").load()
    engine = choose_engine(function_of(odd_module, "auto", signature_name="from_table"))
    images = probe_images(32, 32)
    assert engine.name == "tensorflow"
    np.testing.assert_allclose(infer(engine, images), tiny_vectors(images), rtol=1e-5, atol=1e-5)


def test_encoded_images_are_for_tensorflow(odd_module):
    engine = choose_engine(function_of(odd_module, "auto", signature_name="encoded"))
    assert (engine.name, engine.dtype, engine.dimension) == ("tensorflow", "encoded", TINY_DIMENSION)
    message = r"^signature 'encoded' takes encoded images, which only TensorFlow decodes; use --engine=tensorflow and"
    with pytest.raises(ModuleError, match=message):
        choose_engine(function_of(odd_module, "openvino", signature_name="encoded"))
