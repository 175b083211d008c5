import shutil

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.freezing import freeze
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import ImageSignature, choose_signature
from pipeline.testing import tiny_vectors


class TestFreeze:
    @pytest.fixture(params=["tiny_module", "tiny_tf1_module"])
    def path(self, request):
        return str(request.getfixturevalue(request.param))

    @pytest.fixture
    def chosen(self, path):
        return choose_signature(read_module(path))

    @pytest.mark.parametrize("batch_size", [None, 3])
    def test_it_computes_what_the_module_does(self, path, chosen, batch_size):
        graph = freeze(path, chosen, batch_size)
        batch = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
        (vectors,) = graph.function(tensor_of(batch))
        np.testing.assert_allclose(vectors.numpy(), tiny_vectors(batch), rtol=1e-5, atol=1e-6)
        assert graph.traces.count == 1

    def test_nothing_variable_is_left(self, path, chosen):
        definition = freeze(path, chosen).function.graph.as_graph_def()
        operations = {node.op for node in definition.node}
        operations |= {node.op for function in definition.library.function for node in function.node_def}
        assert not {op for op in operations if "Variable" in op or op == "VarHandleOp"}
        assert "Placeholder" in operations

    def test_names_of_its_ends(self, path, chosen):
        graph = freeze(path, chosen)
        assert graph.input_name == "images"
        assert graph.function.graph.get_tensor_by_name(graph.output_name).shape.as_list() == [None, 8]

    def test_one_trace_whatever_the_number_of_images(self, path, chosen):
        graph = freeze(path, chosen)
        for count in (1, 2, 5, 1, 8):
            (vectors,) = graph.function(tensor_of(np.zeros((count, 32, 32, 3), np.float32)))
            assert vectors.shape == (count, 8)
        assert graph.traces.count == 1

    @pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
    @pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\xff" * 10)])
    def test_an_incomplete_module(self, path, chosen, tmp_path, name, damage):
        copy = shutil.copytree(path, tmp_path / "copy")
        damage(copy / "variables" / name)
        with pytest.raises(ModuleError, match=rf"^{copy} cannot be loaded: .*; is the module complete\?$") as error:
            freeze(str(copy), chosen)
        assert "\n" not in str(error.value)

    def test_a_signature_that_is_not_there(self, path, chosen):
        other = ImageSignature("nothing", chosen.input_key, chosen.output_key, 32, 32, 8)
        with pytest.raises(
            ModuleError,
            match=r"cannot be computed: signature 'nothing', output 'default': KeyError: ",
        ):
            freeze(path, other)

    def test_an_output_that_is_not_there(self, path, chosen):
        other = ImageSignature(chosen.signature, chosen.input_key, "nothing", 32, 32, 8)
        with pytest.raises(ModuleError, match=r"output 'nothing': KeyError: 'nothing'; choose another --signature or"):
            freeze(path, other)

    def test_a_size_that_does_not_fit(self, path, chosen):
        other = ImageSignature(chosen.signature, chosen.input_key, chosen.output_key, 64, 64, 8)
        with pytest.raises(ModuleError, match=r"cannot be computed: signature "):
            freeze(path, other)


def odd(path, name, batch_size=None, **options):
    return freeze(path, choose_signature(read_module(path, sha256="-"), signature=name, **options), batch_size)


class TestOddSignatures:
    """Whatever a signature takes and returns, the graph takes images in [0, 1] and returns their vectors."""

    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32) / 255

    @pytest.mark.parametrize("name", ["uint8", "nchw", "batch", "training", "default", "pooled", "labels"])
    def test_inputs_and_outputs(self, odd_module, name):
        graph = odd(odd_module, name)
        assert graph.is_constant
        np.testing.assert_allclose(graph.compute(self.images), tiny_vectors(self.images), rtol=1e-5, atol=1e-5)

    def test_float16(self, odd_module):
        images = self.images.astype(np.float16).astype(np.float32)
        np.testing.assert_allclose(
            odd(odd_module, "float16").compute(images), tiny_vectors(images), rtol=1e-5, atol=1e-5
        )

    def test_levels_of_uint8_are_rounded_half_to_even_as_those_of_numpy(self, odd_module):
        levels = np.arange(32 * 32 * 3, dtype=np.float32).reshape(1, 32, 32, 3) % 511 / 2  # 0, 0.5, 1, ... 255
        images = levels * np.float32(1 / 255)
        expected = tiny_vectors(np.rint(levels) / 255)
        np.testing.assert_allclose(odd(odd_module, "uint8").compute(images), expected, rtol=1e-5, atol=1e-5)

    def test_a_fixed_batch_size_is_kept(self, odd_module):
        graph = odd(odd_module, "batch", 1)
        assert graph.function.inputs[0].shape.as_list() == [4, 32, 32, 3]

    @pytest.mark.parametrize(
        ("name", "pooling", "multiples"),
        [
            ("tokens", "mean", [2]),
            ("tokens", "cls", [1]),
            ("tokens", "flatten", [1, 2, 3]),
            ("map", "mean", [2.5]),
            ("map", "flatten", [1, 2, 3, 4]),
            ("nchw_map", "mean", [2.5]),
            ("pooled", "mean", [1]),
        ],
    )
    def test_pooling(self, odd_module, name, pooling, multiples):
        chosen = choose_signature(read_module(odd_module, sha256="-"), signature=name, pooling=pooling)
        vectors = freeze(odd_module, chosen).compute(self.images)
        expected = np.concatenate([number * tiny_vectors(self.images) for number in multiples], axis=1)
        assert vectors.shape == (4, chosen.dimension)
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)

    def test_a_table_beside_the_output_is_not_in_the_graph(self, odd_module):
        definition = odd(odd_module, "labels").function.graph.as_graph_def()
        assert [node.op for node in definition.node].count("Placeholder") == 1
        assert not [node.op for node in definition.node if "Table" in node.op or node.op == "ArgMax"]

    def test_a_table_that_the_output_needs(self, odd_module):
        graph = odd(odd_module, "from_table", 4)
        assert not graph.is_constant
        np.testing.assert_allclose(graph.compute(self.images), tiny_vectors(self.images), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def switched_tf1_module(tmp_path_factory):
    """A TF1 Hub module with a training switch, which is on by default, and an input with the default 2."""
    import_tensorflow()
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        images = v1.placeholder(tf.float32, [None, 32, 32, 3], "images")
        training = v1.placeholder_with_default(True, [], "is_training")
        scale = v1.placeholder_with_default(2.0, [], "scale")
        means = tf.reduce_mean(images, [1, 2]) * scale + tf.where(training, 1e3, 0.0)
        inputs = {"images": images, "is_training": training, "scale": scale}
        default = hub_format.Signature(inputs, {"default": means})
    size = hub_format.ImageSize(32, 32)
    directory = tmp_path_factory.mktemp("switched") / "module"
    meta_graph = hub_format.make_meta_graph(graph, hub_format.INFERENCE, {"default": default}, size)
    hub_format.write(directory, [meta_graph], {"unused": np.zeros(1, np.float32)})
    return str(directory)


def test_further_inputs_of_a_tf1_module(switched_tf1_module):
    chosen = choose_signature(read_module(switched_tf1_module, sha256="-"))
    assert chosen.switches == ("is_training",)
    images = TestOddSignatures.images
    vectors = freeze(switched_tf1_module, chosen).compute(images)
    np.testing.assert_allclose(vectors, 2 * images.mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)


def tensor_of(array):
    import_tensorflow()
    import tensorflow as tf

    return tf.constant(array)
