"""Files that describe a transform; `tests/images/test_transform.py` compares their pixels with their libraries'."""

import json
import re

import pytest
import yaml

from pipeline.core.errors import UsageError
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, find_transform, read_transform
from pipeline.images.transforms.registry import PRESETS

CLIP_FILE = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
VIT_FILE = {
    "image_processor_type": "ViTImageProcessorFast",
    "size": {"height": 384, "width": 384},
    "resample": 2,
    "do_normalize": False,
    "do_pad": None,
}


@pytest.fixture
def read(tmp_path):
    def read_values(values, name="config.json"):
        path = tmp_path / name
        path.write_text(json.dumps(values) if name.endswith(".json") else yaml.safe_dump(values))
        return read_transform(str(path))

    return read_values


def test_the_file_of_clip_is_the_preset(read):
    assert read(CLIP_FILE) == FileTransform(PRESETS.load("clip"), (224, 224))


def test_values_that_are_not_said_are_those_of_the_processor(read):
    assert read(VIT_FILE) == FileTransform(ImageTransform(antialias=True), (384, 384))
    raw = read({**VIT_FILE, "do_rescale": False}).transform
    assert raw.input_range == (0, 255)
    assert read({**VIT_FILE, "rescale_factor": 1 / 127.5}).transform.input_range == (0, pytest.approx(2))


def test_a_crop_has_exactly_the_size_of_the_file(read):
    for resized in range(224, 400):
        values = {**CLIP_FILE, "size": {"shortest_edge": resized}}
        assert read(values).transform.box(224, 224) == (resized, resized)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"feature_extractor_type": "BeitFeatureExtractor"},
            "image_processor_type='BeitFeatureExtractor' is unknown; expected one of CLIPImageProcessor, "
            "BitImageProcessor, SiglipImageProcessor, ViTImageProcessor, DeiTImageProcessor, ConvNextImageProcessor",
        ),
        ({"resample": 1}, "resample=1: expected 2 (bilinear) or 3 (bicubic)"),
        ({"do_resize": False}, "do_resize=False is not supported"),
        ({"do_reduce_labels": True}, "do_reduce_labels=True is not supported"),
        ({"do_pad": True}, "do_pad=True is not supported"),
        ({"do_center_crop": False}, "size=224 without do_center_crop leaves images of different sizes"),
        ({"size": {"longest_edge": 9}}, "size={'longest_edge': 9}: expected height and width, or shortest_edge"),
        (
            {"crop_size": 256},
            "crop_size=256 with size=224: expected a crop of the same shape that is not larger",
        ),
        ({"image_mean": [0.5, 0.5]}, "image_mean=[0.5, 0.5]: expected one number or three"),
        ({"image_std": [0, 1, 1]}, "std=(0.0, 1.0, 1.0): expected three numbers above 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor='1/255': expected a number"),
    ],
)
def test_what_would_change_pixels_is_refused_by_name(read, tmp_path, change, problem):
    text = (
        f"{tmp_path / 'config.json'}: {problem}; change the file, or name another --preprocess (a preset or a "
        "preprocessor_config.json of Hugging Face)"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        read({**CLIP_FILE, **change})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"interpolation": "lanczos"}, "interpolation='lanczos': expected bilinear or bicubic"),
        ({"crop_mode": "five"}, "crop_mode='five': expected center, squash, border"),
        ({"crop_border_pixels": 4}, "crop_border_pixels=4 is not supported"),
        ({"input_size": [1, 224, 224]}, "input_size=[1, 224, 224]: expected 3 channels, a height and a width"),
        ({"crop_pct": 1.5}, "crop_fraction=1.5: expected a number above 0, and at most 1"),
    ],
)
def test_a_configuration_of_timm_that_cannot_be_honoured(read, change, problem):
    with pytest.raises(UsageError, match=re.escape(problem)):
        read({"pretrained_cfg": {"input_size": [3, 224, 224], **change}})


def test_the_defaults_of_timm(read):
    assert read({"pretrained_cfg": {"mean": None}}) == FileTransform(
        ImageTransform(
            "crop",
            0.875,
            "bicubic",
            True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            margins="half_even",
        )
    )


def test_an_own_file_changes_a_preset(read):
    found = read({"preset": "clip", "crop_fraction": 0.9, "std": 0.25, "image_size": [96, 128]}, "my.yaml")
    assert found.image_size == (96, 128)
    assert found.transform == ImageTransform(
        "crop", 0.9, "bicubic", True, mean=PRESETS.load("clip").mean, std=(0.25, 0.25, 0.25)
    )
    assert read({"preset": "clip", "input_range": [-1, 1]}, "my.yaml").transform == ImageTransform(
        "crop", 1.0, "bicubic", True, input_range=(-1, 1)
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"preset": "clip", "crop": 0.9}, "'crop' is unknown; expected some of preset, image_size, resize, "),
        ({"preset": "clap"}, "--preprocess='clap' is unknown; expected one of hub, "),
        ({"antialias": "yes"}, "antialias='yes': expected true or false"),
        ({"input_range": 255}, "input_range=255: expected a list of two numbers"),
        ({"input_range": [1, 0]}, "input_range=(1.0, 0.0): expected a low and a higher number, such as -1,1"),
        ({"image_size": [224]}, "image_size=[224]: expected a list of height and width"),
        ({"image_size": [224, 0]}, "width=0: expected a number of pixels"),
        ({"resize": "fit"}, "resize='fit': expected squash or crop or pad"),
        ({"fill": [0, 0, 300]}, "fill=(0, 0, 300): expected three levels from 0 to 255"),
        ({"channels": ["rgb"]}, "channels=['rgb']: expected rgb or bgr"),
    ],
)
def test_an_own_file_that_cannot_be_honoured(read, values, problem):
    with pytest.raises(UsageError, match=re.escape(problem)):
        read(values, "my.yaml")


def test_other_files_are_named_for_what_they_are(read, tmp_path):
    kinds = "a YAML file of this package, a preprocessor_config.json of Hugging Face or a config.json of timm"
    path = tmp_path / "config.json"
    with pytest.raises(UsageError, match=re.escape(f"--preprocess={path}: no known kind of file; expected {kinds}")):
        read({"architectures": ["ViTModel"]})
    with pytest.raises(UsageError, match="holds no mapping from names to values"):
        read(["a"])
    path.write_text("{")
    with pytest.raises(UsageError, match="is neither JSON nor YAML: Expecting property name"):
        read_transform(str(path))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_transform(str(tmp_path))


def test_the_file_beside_a_module(tmp_path):
    assert find_transform(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"architectures": ["ViTModel"]}')  # of another purpose
    assert find_transform(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {}}')
    name, found = find_transform(str(tmp_path))
    assert (name, found.transform.crop_fraction) == ("config.json", 0.875)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT_FILE))
    assert find_transform(str(tmp_path))[0] == "preprocessor_config.json"
    (tmp_path / "preprocess.yaml").write_text("pre_set: clip\n")
    with pytest.raises(UsageError, match="'pre_set' is unknown"):
        find_transform(str(tmp_path))
    (tmp_path / "preprocess.yaml").write_text("preset: siglip\n")
    assert find_transform(str(tmp_path)) == ("preprocess.yaml", FileTransform(PRESETS.load("siglip")))
