"""The table of docs/modules.md, and what a module declares."""

import re
from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.core.settings import PreprocessConfig
from pipeline.hub.preprocess import NamedTransform, declared_transform, named_transform, override
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.module import Module, SignatureInfo, TensorInfo
from pipeline.savedmodel.signatures import ImageSignature

DOCS = (Path(__file__).parents[2] / "docs/modules.md").read_text()


def make_module(input_key="x", output_key="y", dtype="float32", kind="tf2", image_size=None, path="/nowhere"):
    signature = SignatureInfo(
        {input_key: TensorInfo(input_key, dtype, (None, 8, 8, 3))},
        {output_key: TensorInfo(output_key, "float32", (None, 4))},
    )
    module = Module("handle", str(path), "0" * 64, kind, ((),), {"serving_default": signature}, image_size)
    return module, ImageSignature("serving_default", input_key, output_key, 8, 8, 4)


@pytest.mark.parametrize("name", PRESETS.names)
def test_the_table_says_what_each_preset_feeds(name):
    row = re.search(rf"\| `--preprocess={name}` \| (.*) \|", DOCS)
    assert (row[1] if row else "squash, bilinear, RGB in [0, 1]") == PRESETS.load(name).describe()
    assert row or name == "hub"


@pytest.mark.parametrize(
    ("module", "preset", "source"),
    [
        (make_module(), None, None),
        (make_module("images"), None, None),
        (make_module("images", "default"), "hub", "names of TF Hub's image signatures"),
        (make_module(kind="tf1_hub"), "hub", "TF1 Hub format"),
        (make_module(image_size=(8, 8)), "hub", "attachment image_module_info"),
        (make_module("images", "default", dtype="uint8"), "raw255", "uint8 input"),
    ],
)
def test_what_a_module_declares(module, preset, source):
    expected = preset and NamedTransform(PRESETS.load(preset), source)
    assert declared_transform(*module) == expected


def test_what_names_a_transform(tmp_path):
    module, _ = make_module(path=tmp_path)
    assert named_transform(module, PreprocessConfig()) is None
    assert named_transform(module, PreprocessConfig(resize="crop", std=(2.0, 2.0, 2.0))) is None
    assert named_transform(module, PreprocessConfig(input_range=(0.0, 2.0))).source == "flags"
    (tmp_path / "preprocess.yaml").write_text("preset: clip\nimage_size: [8, 8]\n")
    found = named_transform(module, PreprocessConfig())
    assert found == NamedTransform(PRESETS.load("clip"), "preprocess.yaml in the module's directory", (8, 8))
    assert named_transform(module, PreprocessConfig("raw255")).source == "preset raw255"
    given = str(tmp_path / "preprocess.yaml")
    assert named_transform(module, PreprocessConfig(given)).source == f"file {given}"


def test_flags_override_single_values():
    clip = PRESETS.load("clip")
    assert override(clip, PreprocessConfig("clip")) == clip
    changed = override(clip, PreprocessConfig(resize="pad", antialias=False, crop_fraction=0.5, channels="bgr"))
    assert changed == ImageTransform("pad", 0.5, "bicubic", False, "bgr", mean=clip.mean, std=clip.std)
    half = (0.5, 0.5, 0.5)
    assert override(clip, PreprocessConfig(std=half)).mean == clip.mean
    ranged = override(clip, PreprocessConfig(input_range=(-1.0, 1.0), std=half))
    assert (ranged.input_range, ranged.mean, ranged.std) == ((-1, 1), (0, 0, 0), half)


@pytest.mark.parametrize("path", ["~nosuchuser/x.json", "x" * 300])
def test_a_path_that_cannot_be_is_one_line(path, tmp_path):
    with pytest.raises(UsageError, match=r"is unknown; expected one of hub, .*, or the path of a file"):
        named_transform(make_module(path=tmp_path)[0], PreprocessConfig(path))


@pytest.mark.parametrize("content", ["[1, 2]", "// a comment", "{}"])
def test_a_config_of_something_else_says_nothing(content, tmp_path):
    module, _ = make_module(path=tmp_path)
    (tmp_path / "config.json").write_text(content)
    assert named_transform(module, PreprocessConfig()) is None
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(UsageError, match="preprocessor_config"):
        named_transform(module, PreprocessConfig())
