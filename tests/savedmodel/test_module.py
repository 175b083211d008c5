import dataclasses
import re
import shutil

import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.core.quiet import import_tensorflow
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.module import (
    ImageSignature,
    Module,
    SignatureInfo,
    TensorInfo,
    choose_signature,
    freeze,
    read_module,
)
from pipeline.testing import tiny_vectors

IMAGES = TensorInfo("images", "float32", (None, 32, 32, 3))
VECTORS = TensorInfo("default", "float32", (None, 8))
DIGEST = "0" * 64


def signature(inputs=(IMAGES,), outputs=(VECTORS,)):
    return SignatureInfo({tensor.key: tensor for tensor in inputs}, {tensor.key: tensor for tensor in outputs})


def module(image_size=None, **signatures):
    return Module("m", "/m", DIGEST, "tf2", (("serve",),), signatures or {"default": signature()}, image_size)


def images(*shape, dtype="float32"):
    return TensorInfo("images", dtype, shape)


class TestRead:
    def test_a_tf2_module(self, tiny_module):
        path, digest = str(tiny_module), module_digest(tiny_module)
        found = Module(path, path, digest, "tf2", (("serve",),), {"serving_default": signature()}, None)
        assert read_module(path) == found
        assert read_module(path, handle="m", sha256=DIGEST) == dataclasses.replace(found, handle="m", sha256=DIGEST)

    def test_a_tf1_hub_module(self, tiny_tf1_module):
        info = read_module(str(tiny_tf1_module))
        assert info.format == "tf1_hub"
        assert info.tag_sets == ((),)
        assert info.signatures == {"default": signature(), "image_feature_vector": signature()}
        assert info.image_size == (32, 32)

    def test_no_module(self, tmp_path):
        message = f"{tmp_path} is not a module: saved_model.pb cannot be read: No such file or directory"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_a_damaged_module(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
        message = f"{tmp_path} is not a module: its saved_model.pb is damaged; fetch it again"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_an_empty_module(self, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(b"")
        message = f"{tmp_path} has no graph with tags ['serve']; its graphs have the tags none"
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            read_module(str(tmp_path))

    def test_a_hub_module_without_its_mark(self, tiny_tf1_module, tmp_path):
        copy = shutil.copytree(tiny_tf1_module, tmp_path / "copy")
        (copy / "tfhub_module.pb").unlink()
        with pytest.raises(ModuleError, match=r"has no graph with tags \['serve'\]; its graphs have the tags \[\]$"):
            read_module(str(copy))

    def test_a_mark_on_another_module(self, tiny_module, tiny_tf1_module, tmp_path):
        copy = shutil.copytree(tiny_module, tmp_path / "copy")
        shutil.copy(tiny_tf1_module / "tfhub_module.pb", copy)
        with pytest.raises(ModuleError, match=r"has no graph with tags \[\]; its graphs have the tags \[serve\]$"):
            read_module(str(copy))


class TestChooseSignature:
    @pytest.mark.parametrize(
        ("names", "chosen"),
        [
            (["serving_default", "default", "image_feature_vector"], "image_feature_vector"),
            (["serving_default", "default"], "default"),
            (["other", "serving_default"], "serving_default"),
        ],
    )
    def test_the_first_of_the_usual_names(self, names, chosen):
        assert choose_signature(module(**{name: signature() for name in names})).signature == chosen

    def test_the_one_that_is_named(self):
        found = module(default=signature(), other=signature(outputs=[TensorInfo("x", "float32", (None, 5))]))
        assert choose_signature(found, signature="other") == ImageSignature("other", "images", "x", 32, 32, 5)

    @pytest.mark.parametrize(
        ("outputs", "wanted", "chosen"),
        [
            ([VECTORS], None, "default"),
            ([TensorInfo("x", "float32", (None, 5))], None, "x"),
            ([VECTORS, TensorInfo("x", "float32", (None, 5))], None, "default"),
            ([VECTORS, TensorInfo("x", "float32", (None, 5))], "x", "x"),
            ([TensorInfo("x", "float32", None)], None, "x"),
        ],
    )
    def test_the_output(self, outputs, wanted, chosen):
        picked = choose_signature(module(default=signature(outputs=outputs)), output_key=wanted)
        assert picked.output_key == chosen
        shape = {tensor.key: tensor.shape for tensor in outputs}[chosen]
        assert picked.dimension == (shape[-1] if shape else None)

    def test_an_input_of_another_name(self):
        tensor = TensorInfo("input_1", "float32", (None, 32, 32, 3))
        assert choose_signature(module(default=signature(inputs=[tensor]))).input_key == "input_1"

    @pytest.mark.parametrize(
        ("shape", "attached", "asked", "size"),
        [
            ((None, 32, 48, 3), None, None, (32, 48)),
            ((None, 32, 48, 3), None, (32, 48), (32, 48)),
            ((None, None, None, 3), (96, 64), None, (96, 64)),
            ((None, None, None, 3), (96, 64), (96, 64), (96, 64)),
            ((None, None, None, None), None, (96, 64), (96, 64)),
            ((None, None, 48, 3), None, (32, 48), (32, 48)),
            (None, None, (96, 64), (96, 64)),
        ],
    )
    def test_the_image_size(self, shape, attached, asked, size):
        tensor = TensorInfo("images", "float32", shape)
        picked = choose_signature(module(attached, default=signature(inputs=[tensor])), image_size=asked)
        assert (picked.height, picked.width) == size

    @pytest.mark.parametrize(
        ("info", "options", "message"),
        [
            (
                module(other=signature(), more=signature()),
                {},
                "the module has none of the signatures image_feature_vector, default, serving_default; "
                "it has: other, more; name one with --signature",
            ),
            (
                module(),
                {"signature": "x"},
                "the module has no signature 'x'; it has: default; name one with --signature",
            ),
            (
                dataclasses.replace(module(), signatures={}),
                {"signature": "x"},
                "the module has no signature 'x'; it has: none; name one with --signature",
            ),
            *(
                (
                    module(default=signature(inputs=inputs)),
                    {},
                    f"signature 'default' takes no images: it takes {found}; "
                    "expected one input float32[?,height,width,3]",
                )
                for inputs, found in [
                    ([], "no inputs"),
                    ([TensorInfo("text", "string", (None,))], "text: string[?]"),
                    ([images(None, 32, 32, 3, dtype="uint8")], "images: uint8[?,32,32,3]"),
                    ([images(None, 3, 32, 32)], "images: float32[?,3,32,32]"),
                    ([images(None, 32, 32)], "images: float32[?,32,32]"),
                    (
                        [IMAGES, TensorInfo("training", "bool", ())],
                        "images: float32[?,32,32,3]; training: bool[]",
                    ),
                ]
            ),
            (
                module(),
                {"output_key": "x"},
                "signature 'default' has no output 'x'; choose --output_key from: default",
            ),
            (
                module(default=signature(outputs=[TensorInfo(key, "float32", (None, 2)) for key in "ab"])),
                {},
                "signature 'default' has several outputs and none is 'default'; choose --output_key from: a, b",
            ),
            (
                module(default=signature(outputs=[TensorInfo("default", "float32", (None, 7, 7, 2))])),
                {},
                "signature 'default' gives no vectors: default: float32[?,7,7,2]; "
                "expected an output float32[?,dimension]",
            ),
            (
                module(default=signature(outputs=[TensorInfo("default", "int64", (None, 2))])),
                {},
                "signature 'default' gives no vectors: default: int64[?,2]; expected an output float32[?,dimension]",
            ),
            *(
                (
                    module(default=signature(inputs=[TensorInfo("images", "float32", shape)])),
                    {},
                    "the module does not say what image size signature 'default' takes; give --image_size=H,W",
                )
                for shape in [None, (None, None, None, 3), (None, 32, None, 3)]
            ),
            *(
                (
                    module(attached, default=signature(inputs=[images(None, *shape, 3)])),
                    {"image_size": (64, 96)},
                    f"--image_size=64,96 contradicts the module, which takes {takes}; leave it out",
                )
                for attached, shape, takes in [
                    ((32, 32), (None, None), "32,32"),
                    (None, (32, 48), "32,48"),
                    (None, (32, None), "32,96"),
                    (None, (None, 48), "64,48"),
                ]
            ),
        ],
    )
    def test_refused(self, info, options, message):
        with pytest.raises(ModuleError, match=f"^{re.escape(message)}$"):
            choose_signature(info, **options)


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
        with pytest.raises(ModuleError, match=r"cannot be loaded: KeyError"):
            freeze(path, other)

    def test_an_output_that_is_not_there(self, path, chosen):
        other = ImageSignature(chosen.signature, chosen.input_key, "nothing", 32, 32, 8)
        with pytest.raises(ModuleError, match=r"cannot be loaded: KeyError: 'nothing'"):
            freeze(path, other)

    def test_a_size_that_does_not_fit(self, path, chosen):
        other = ImageSignature(chosen.signature, chosen.input_key, chosen.output_key, 64, 64, 8)
        with pytest.raises(ModuleError, match=r"cannot be loaded: "):
            freeze(path, other)


def tensor_of(array):
    import_tensorflow()
    import tensorflow as tf

    return tf.constant(array)
