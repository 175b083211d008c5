"""The table of docs/modules.md: each row that is typed is a handle of the right kind, and each that is fed is known."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.core.settings import ModuleConfig, PreprocessConfig
from pipeline.hub.describe import describe
from pipeline.hub.handles import published
from pipeline.hub.handles.registry import HANDLES
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.publish import write_archive
from tests.environments import REPOSITORY
from tests.hub.modules import DIGEST, packed
from tests.hub.server import Server, answer
from tests.model_formats.models import CNN, VIT, write_ir, write_onnx

PAGE = (REPOSITORY / "docs" / "modules.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.split("## What to type")[1].split("\n\n**")[0].splitlines()
    if line.startswith("| ")
][2:]


def kind_of(handle):
    return next(type(kind).__name__ for kind in HANDLES if kind.is_supported(handle))


def test_the_table_has_rows():
    assert len(ROWS) > 15
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("DIR", "LocalDirectoryHandle"),
        ("DIR/saved_model.pb", "LocalDirectoryHandle"),
        ("FILE.tar.gz", "LocalArchiveHandle"),
        ("google/imagenet/mobilenet_v2_050_160/feature_vector/1", "PublishedHandle"),
        ("https://tfhub.dev/google/imagenet/mobilenet_v2_050_160/feature_vector/1", "PublishedHandle"),
        ("https://example.com/module.tar.gz", "HttpHandle"),
        ("kaggle:OWNER/MODEL/FRAMEWORK/VARIATION", "KaggleHandle"),
        ("gs://bucket/module", "RemoteHandle"),
        ("untrained:mobilenet_v2_050_160", "UntrainedHandle"),
    ],
)
def test_kinds_of_handles(typed, kind):
    assert kind_of(typed) == kind


def test_the_table_names_flags_and_handles_that_there_are():
    typed = " ".join(row[1] for row in ROWS)
    for flag in re.findall(r"--(\w+)", typed):
        assert flag in {**ModuleConfig.__dataclass_fields__, **PreprocessConfig.__dataclass_fields__}
    handles = {kind_of(handle.replace("[/VERSION]", "")) for handle in re.findall(r"--module=([^` ]+)", typed)}
    kinds = ("LocalDirectory", "LocalArchive", "Kaggle", "ModelFile", "Untrained")
    assert handles >= {f"{kind}Handle" for kind in kinds}


@pytest.mark.parametrize(
    "handle",
    ["MODEL.onnx", "DIR/MODEL.xml", "https://example.com/onnx/model.onnx?download=true", "gs://bucket/model.onnx"],
)
def test_model_files(handle):
    assert kind_of(handle) == "ModelFileHandle"


@dataclass(frozen=True)
class Made:
    """What the rows speak of: a module of the card's format, one with odd signatures, a server, and a place."""

    card: Path
    odd: str
    server: Server
    place: Path

    def feeds(self, handle):
        """Returns the description of a module that is fed as the card's."""
        found = describe(ModuleConfig(str(handle)))
        pixels = "preprocess  squash, bilinear, RGB in [0, 1] (attachment image_module_info)"
        assert pixels in str(found).splitlines(), str(found)
        return found

    def odd_input(self, signature, **settings):
        found = describe(ModuleConfig(self.odd, signature=signature, **settings), PreprocessConfig("hub"))
        assert found.embedding is not None, found.obstacle
        return found.embedding

    def refuses(self, words, **settings):
        assert words in describe(ModuleConfig(self.odd, **settings), PreprocessConfig("hub")).obstacle


@pytest.fixture
def made(convolutions, odd_module, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "TF_HUB", server.url("/tfhub"))
    monkeypatch.setattr(published, "KAGGLE_API", server.url("/kaggle"))
    return Made(Path(convolutions), odd_module, server, tmp_path)


def a_directory_or_its_file(made):
    assert made.feeds(made.card).module.sha256 == made.feeds(made.card / "saved_model.pb").module.sha256


def numbered_versions(made):
    for version in ("9", "10"):
        shutil.copytree(made.card, made.place / "versions" / version)
    assert made.feeds(made.place / "versions").module.path.endswith("/10")


def an_archive(made):
    write_archive(made.card, made.place / "module.tar.gz")
    assert made.feeds(made.place / "module.tar.gz").module.sha256 == made.feeds(made.card).module.sha256


def a_published_name(made):
    name = "google/imagenet/mobilenet_v2_050_160/feature_vector/1"
    made.server.answers[f"/tfhub/{name}"] = [answer(packed())]
    assert resolve_module(name).sha256 == DIGEST


def a_page(made):
    made.server.answers["/tfhub/google/x/1"] = [answer(packed())]
    assert resolve_module("https://tfhub.dev/google/x/1").sha256 == DIGEST


def a_model_on_kaggle(made):
    assert kind_of("kaggle:OWNER/MODEL/FRAMEWORK/VARIATION") == kind_of("kaggle:o/m/f/v/3") == "KaggleHandle"


def nothing_yet(made):
    made.feeds("untrained:mobilenet_v2_035_96")


def onnx_with_its_configuration(made):
    described = describe(ModuleConfig(str(VIT.parent)))
    assert described.module.format == "onnx"
    assert described.preprocess.source == "preprocessor_config.json in the module's directory"


def onnx_alone(made):
    described = describe(ModuleConfig(str(CNN)), PreprocessConfig("clip"))
    assert described.preprocess.source == "preset clip"


def openvino_ir(made):
    described = describe(ModuleConfig(str(write_ir(made.place / "cnn.xml", CNN))), PreprocessConfig("raw255"))
    assert described.preprocess.source == "preset raw255"


def a_size(made):
    path = write_onnx(made.place / "any_size.onnx", size="size")
    assert "--image_size" in describe(ModuleConfig(str(path)), PreprocessConfig("hub")).obstacle
    found = describe(ModuleConfig(str(path), image_size=(24, 40)), PreprocessConfig("hub")).embedding
    assert (found.height, found.width) == (24, 40)


def uint8(made):
    assert made.odd_input("uint8").dtype == "uint8"


def other_floats(made):
    assert made.odd_input("float16").dtype == "float16"


def channels_first(made):
    assert made.odd_input("nchw").layout == "NCHW"


def exact_batch(made):
    assert made.odd_input("batch").fixed_batch_size == 4


def further_inputs(made):
    assert made.odd_input("training").switches == ("training",)
    assert made.odd_input("default").switches == ()


def encoded_images(made):
    found = describe(ModuleConfig(made.odd, signature="encoded"))
    assert (found.embedding.dtype, found.preprocess, found.doubt) == ("string", None, "")


def one_position(made):
    assert made.odd_input("pooled").dimension == 8


def more_positions(made):
    made.refuses("say --pooling=mean, --pooling=cls or --pooling=flatten", signature="tokens")
    assert made.odd_input("tokens", pooling="cls").dimension == 8
    assert made.odd_input("tokens", pooling="flatten").dimension == 24


def several_outputs(made):
    assert made.odd_input("labels").output_key == "default"


def tables(made):
    assert made.odd_input("from_table").dimension == 8


def a_keras_file(made):
    for name in ("model.keras", "model.h5"):
        (made.place / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(ModuleError, match=r"keras.saving.load_model\(.*\).export\("):
            resolve_module(name)


BY_ROW = {
    "a directory with `saved_model.pb`": a_directory_or_its_file,
    "a directory with versions": numbered_versions,
    "a `.tar.gz`": an_archive,
    "a name:": a_published_name,
    "a page on": a_page,
    "a model on Kaggle": a_model_on_kaggle,
    "nothing yet": nothing_yet,
    "a directory or `.tar.gz` with `model.onnx`": onnx_with_its_configuration,
    "an `.onnx` file": onnx_alone,
    "OpenVINO's `.xml` file": openvino_ir,
    "an input without a fixed size": a_size,
    "a signature with a uint8 input": uint8,
    "a float16,": other_floats,
    "an input `[N, 3, height, width]`": channels_first,
    "an input of exactly": exact_batch,
    "a further input": further_inputs,
    "a string input": encoded_images,
    "an output `[N, 1, 1, D]`": one_position,
    "an output `[N, tokens, D]`": more_positions,
    "several outputs": several_outputs,
    "lookup tables": tables,
    "a `.keras` or `.h5` file": a_keras_file,
}


@pytest.mark.parametrize("have", [row[0] for row in ROWS])
def test_each_row_is_true(have, made):
    (check,) = (check for begin, check in BY_ROW.items() if have.startswith(begin))
    check(made)


def test_each_check_has_its_row():
    assert len(BY_ROW) == len(ROWS)
