import re

import pytest

from pipeline.core.errors import ModuleError
from pipeline.model_formats.registry import read_module
from pipeline.savedmodel.signatures import choose_signature
from tests.model_formats.models import CNN, VIT, write_ir


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    return write_ir(tmp_path_factory.mktemp("ir") / "net.xml", CNN)


def test_inputs_and_outputs_are_read(cnn):
    module = read_module(str(cnn.parent))
    assert (module.format, module.model_file, module.unsafe_operations) == ("openvino_ir", "net.xml", ())
    (signature,) = module.signatures.values()
    assert [str(tensor) for tensor in signature.inputs.values()] == ["input: float32[?,3,64,64]"]
    assert [str(tensor) for tensor in signature.outputs.values()] == ["features: float32[?,32,1,1]"]
    chosen = choose_signature(module)
    assert (chosen.height, chosen.width, chosen.dimension) == (64, 64, 32)


def test_several_outputs(tmp_path):
    path = write_ir(tmp_path / "model.xml", VIT)
    assert choose_signature(read_module(str(path.parent)), output_key="image_embeds").dimension == 24


def test_operations_of_extensions_are_named(cnn, tmp_path):
    text = cnn.read_text()
    (tmp_path / "net.bin").write_bytes(cnn.with_suffix(".bin").read_bytes())
    (tmp_path / "net.xml").write_text(re.sub(r'(type="Convolution" version=)"opset1"', r'\1"extension"', text, count=1))
    (operation,) = read_module(str(tmp_path)).unsafe_operations
    assert str(operation).startswith("extension.Convolution (libraries; node ")


def test_a_bomb_of_entities_is_refused(tmp_path):
    (tmp_path / "net.bin").touch()
    levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    (tmp_path / "net.xml").write_text(f'<!DOCTYPE net [<!ENTITY e0 "ha">{levels}]><net><layers>&e9;</layers></net>')
    with pytest.raises(ModuleError, match="is not an OpenVINO model, or it is damaged"):
        read_module(str(tmp_path))
