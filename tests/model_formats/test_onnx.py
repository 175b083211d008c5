import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.core.errors import ModuleError
from pipeline.core.settings import ModuleConfig
from pipeline.hub.describe import describe
from pipeline.model_formats.registry import read_module
from pipeline.savedmodel.safety import check_operations
from pipeline.savedmodel.signatures import choose_signature
from tests.model_formats.models import SIZE, VIT, write_onnx


def read(path):
    return read_module(str(path.parent))


def test_inputs_and_outputs_are_read():
    module = read(VIT)
    assert (module.format, module.tag_sets, module.image_size) == ("onnx", (), None)
    (signature,) = module.signatures.values()
    assert [str(tensor) for tensor in signature.inputs.values()] == ["pixel_values: float32[?,3,32,32]"]
    assert [str(tensor) for tensor in signature.outputs.values()] == [
        "image_embeds: float32[?,24]",
        "last_hidden_state: float32[?,17,24]",
    ]


def test_it_is_described(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx", dtype=TensorProto.UINT8)
    text = str(describe(ModuleConfig(str(path.parent))))
    assert "\nformat      ONNX\nimage size  16x16 (shape of the signature's input)\n" in text
    assert "\nembedding   8 values (signature default, output vectors)\n" in text
    assert "\nsignature default\n  in   images: uint8[?,3,16,16]\n  out  vectors: float32[?,8,1,1]" in text
    assert "tags" not in text


def test_the_chosen_function_has_the_size_of_the_input(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx")
    chosen = choose_signature(read(path))
    assert (chosen.signature, chosen.input_key, chosen.output_key) == ("default", "images", "vectors")
    assert (chosen.height, chosen.width, chosen.dimension) == (SIZE, SIZE, 8)


def test_a_free_size_must_be_said(tmp_path):
    module = read(write_onnx(tmp_path / "m" / "model.onnx", size="side"))
    with pytest.raises(ModuleError, match=r"does not say what image size signature 'default' takes; give --image_size"):
        choose_signature(module)
    chosen = choose_signature(module, image_size=(24, 40))
    assert (chosen.height, chosen.width) == (24, 40)


def test_an_input_whose_axes_are_all_free_is_nchw(tmp_path):
    module = read(write_onnx(tmp_path / "m" / "model.onnx", size="side", channels="channels"))
    chosen = choose_signature(module, image_size=(24, 40))
    assert (chosen.layout, chosen.height, chosen.width) == ("NCHW", 24, 40)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"signature": "serve"}, r"has no signature 'serve'; it has: default; name one with --signature"),
        ({"output_key": "no"}, r"has no output 'no'; choose --output_key from: image_embeds, last_hidden_state"),
        ({"output_key": "last_hidden_state"}, r"\[\?,17,24\]; expected an output .*, or say --pooling=mean, "),
    ],
)
def test_what_cannot_be_chosen(asked, message):
    with pytest.raises(ModuleError, match=message):
        choose_signature(read(VIT), **asked)


def test_the_only_output_of_vectors_is_chosen():
    chosen = choose_signature(read(VIT))
    assert (chosen.output_key, chosen.dimension) == ("image_embeds", 24)


def test_a_model_of_something_else_is_refused(tmp_path):
    text = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    out = helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", "length"])
    graph = helper.make_graph([helper.make_node("Identity", ["input_ids"], ["y"])], "g", [text], [out])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ModuleError, match=r"takes no images: it takes input_ids: int64\[\?,\?\]; expected one input"):
        choose_signature(read_module(str(tmp_path)))


def test_operators_of_others_are_named_and_refused(tmp_path):
    module = read(write_onnx(tmp_path / "m" / "model.onnx", domain="acme", operator="Magic"))
    (operation,) = module.unsafe_operations
    assert str(operation) == "acme.Magic (libraries; node middle)"
    with pytest.raises(ModuleError, match=r"operations that reach beyond it: acme\.Magic \(libraries; node middle\)"):
        check_operations("m", module.unsafe_operations, allow=False)


@pytest.mark.parametrize(
    ("domain", "operator", "count"), [("com.microsoft", "Gelu", 0), ("com.microsoft", "PythonOp", 1)]
)
def test_operators_of_onnx_runtime(tmp_path, domain, operator, count):
    module = read(write_onnx(tmp_path / "m" / "model.onnx", domain=domain, operator=operator))
    assert len(module.unsafe_operations) == count


def test_operators_in_branches_are_found_and_functions_of_the_model_are_its_own(tmp_path):
    path = write_onnx(tmp_path / "m" / "model.onnx", domain="own", operator="Middle")
    model = onnx.load(path)
    own = helper.make_function(
        "own", "Middle", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(own)
    onnx.save(model, path)
    assert read(path).unsafe_operations == ()
    branch = helper.make_graph([helper.make_node("Hidden", [], ["b"], domain="acme")], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["images"], [], then_branch=branch, else_branch=branch))
    onnx.save(model, path)
    assert [item.operation for item in read(path).unsafe_operations] == ["acme.Hidden"]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", ""])
def test_weights_outside_of_the_directory_are_refused(tmp_path, location):
    path = write_onnx(tmp_path / "m" / "model.onnx", external="weights")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModuleError, match=r"its weights would be read from .*, outside of its directory"):
        read(path)
