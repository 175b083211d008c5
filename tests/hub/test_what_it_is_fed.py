"""The table of docs/modules.md, "What a module is fed": for each row, `describe` prints what the row says."""

import json

import pytest

from pipeline.core.quiet import import_tensorflow
from pipeline.core.settings import ModuleConfig, PreprocessConfig
from pipeline.hub.describe import describe
from pipeline.images.transforms.registry import PRESETS
from tests.environments import REPOSITORY
from tests.model_formats.models import CNN, VIT

PAGE = (REPOSITORY / "docs" / "modules.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.split("## What a module is fed")[1].split("\n\nThe transform of a run")[0].splitlines()
    if line.startswith("| ")
][2:]
BY_PRESET = [row for row in ROWS if row[1].removeprefix("`--preprocess=").removesuffix("`") in PRESETS.names]


def row_of(begin):
    (row,) = (row for row in ROWS if row[0].startswith(begin))
    return row


def printed(module, preprocess=None):
    """Returns the line `preprocess` of a description: the transform, and its source in brackets."""
    lines = str(describe(ModuleConfig(str(module)), PreprocessConfig(preprocess))).splitlines()
    (line,) = (line.removeprefix("preprocess").strip() for line in lines if line.startswith("preprocess"))
    return line


def test_each_row_has_its_test():
    others = ("a module of TensorFlow Hub", "`MobileNetV3`", "a model of Hugging Face", "a model of timm", "anything")
    assert sorted(row[0] for row in [*BY_PRESET, *map(row_of, others)]) == sorted(row[0] for row in ROWS)


@pytest.mark.parametrize("row", BY_PRESET, ids=lambda row: row[1])
def test_a_preset(row):
    name = row[1].strip("`").removeprefix("--preprocess=")
    assert printed(CNN, name) == f"{row[2]} (preset {name})"


def test_a_module_of_tensorflow_hub(convolutions):
    have, typed, fed = row_of("a module of TensorFlow Hub")
    assert "`untrained:…`" in have
    assert typed == "nothing"
    assert printed(convolutions).startswith(f"{fed} (")


@pytest.mark.slow
def test_a_network_of_keras_that_scales_levels_itself(tmp_path):
    """One of the row; `test_detective.py` has more of them."""
    import_tensorflow()
    import keras

    _, typed, fed = row_of("`MobileNetV3`")
    assert typed == "nothing"
    keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg").export(
        tmp_path, verbose=False
    )
    assert printed(tmp_path).startswith(f"{fed} (")


def test_a_model_of_hugging_face():
    """Its processor's values; tests/images/test_transform.py compares the pixels."""
    assert row_of("a model of Hugging Face")[1] == "`--preprocess=preprocessor_config.json`"
    path = VIT.parent / "preprocessor_config.json"
    assert printed(VIT, str(path)) == f"{PRESETS.load('clip').describe()} (file {path})"


def test_a_model_of_timm(tmp_path):
    assert row_of("a model of timm")[1] == "`--preprocess=config.json`"
    values = {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": values}))
    fed = "crop 0.9, bicubic with antialiasing, RGB in [0, 1] minus 0.5 divided by 0.5"
    assert printed(CNN, str(tmp_path / "config.json")).startswith(f"{fed} (file ")


def test_anything_else(tmp_path):
    assert row_of("anything else")[1] == "`--preprocess=my.yaml`, or flags for single values"
    (tmp_path / "my.yaml").write_text("preset: clip\ncrop_fraction: 0.95\n")
    assert printed(CNN, str(tmp_path / "my.yaml")).startswith("crop 0.95, bicubic with antialiasing, ")
    described = describe(ModuleConfig(str(CNN)), PreprocessConfig("hub", input_range=(-1.0, 1.0), resize="pad"))
    assert described.preprocess.transform.describe() == "pad, bilinear, RGB in [-1, 1]"
