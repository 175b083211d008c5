import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.commands.hub import main
from pipeline.core.errors import ModuleError
from pipeline.hub.describe import Description, describe
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.publish import write_archive
from pipeline.savedmodel.signatures import choose_signature


@pytest.fixture
def hub_module(convolutions):
    return Path(convolutions)


@pytest.fixture(scope="module")
def tf2_module(tmp_path_factory):
    """A SavedModel whose two signatures give vectors of one of each colour channel, or of unknown length."""
    import tensorflow as tf

    def signature(function, shape):
        return tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(shape, tf.float32, "images"))

    directory = tmp_path_factory.mktemp("tf2") / "module"
    signatures = {
        "serving_default": signature(lambda images: {"mean": tf.reduce_mean(images, [1, 2])}, [None, 32, 48, 3]),
        "other": signature(lambda images: {"sum": tf.reduce_sum(images)}, None),
    }
    tf.saved_model.save(tf.Module(), str(directory), signatures=signatures)
    return directory


def test_hub_module_in_words(hub_module):
    lines = str(describe(str(hub_module))).splitlines()
    assert lines[:8] == [
        f"module      {hub_module}",
        f"files       {hub_module}",
        f"sha256      {module_digest(hub_module)}",
        "format      TF1 Hub",
        "tags        [], [train]",
        "image size  96x96 (attachment image_module_info)",
        "embedding   1280 values (signature image_feature_vector, output default)",
        "preprocess  squash, bilinear, RGB in [0, 1] (attachment image_module_info)",
    ]
    assert lines[8:11] == ["", "signature default, image_feature_vector", "  in   images: float32[?,96,96,3]"]
    assert "  out  default: float32[?,1280]" in lines
    assert "  out  MobilenetV2/layer_19: float32[?,3,3,1280]" in lines


def test_tf2_module_in_words(tf2_module):
    lines = str(describe(str(tf2_module))).splitlines()
    assert lines.pop(7).startswith(
        f"preprocess  unknown: module {tf2_module} does not say how its images are scaled, and its network does not "
        "show it: "
    )
    assert lines[3:] == [
        "format      TF2 SavedModel",
        "tags        [serve]",
        "image size  32x48 (shape of the signature's input)",
        "embedding   3 values (signature serving_default, output mean)",
        "",
        "signature other",
        "  in   images: float32[unknown shape]",
        "  out  sum: float32[]",
        "",
        "signature serving_default",
        "  in   images: float32[?,32,48,3]",
        "  out  mean: float32[?,3]",
    ]


@pytest.mark.parametrize(
    ("signature", "size", "fed"),
    [
        ("uint8", "32x32 (shape of the signature's input)", "uint8 from 0 to 255, NHWC"),
        ("nchw", "32x32 (shape of the signature's input)", "float32, NCHW"),
        ("batch", "32x32 (shape of the signature's input)", "float32, NHWC, 4 images a call"),
        ("training", "32x32 (shape of the signature's input)", "float32, NHWC, training=False"),
        ("encoded", "any, the module takes encoded images and resizes them", "encoded images"),
    ],
)
def test_how_a_signature_is_fed(odd_module, signature, size, fed):
    module = read_module(odd_module)
    lines = str(Description(module, choose_signature(module, signature=signature), "")).splitlines()
    assert lines[5] == f"image size  {size}"
    assert f"fed with    {fed}" in lines


def test_hub_module_as_json(hub_module, capsys):
    assert main(["describe", str(hub_module), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    outputs = described["signatures"]["image_feature_vector"].pop("outputs")
    assert outputs["default"] == {"dtype": "float32", "shape": [None, 1280]}
    assert described["signatures"].pop("default")["outputs"] == outputs
    assert described == {
        "handle": str(hub_module),
        "path": str(hub_module),
        "sha256": module_digest(hub_module),
        "format": "tf1_hub",
        "tag_sets": [[], ["train"]],
        "image_size": [96, 96],
        "embedding": {
            "signature": "image_feature_vector",
            "input_key": "images",
            "output_key": "default",
            "height": 96,
            "width": 96,
            "dimension": 1280,
            "dtype": "float32",
            "layout": "NHWC",
            "fixed_batch_size": None,
            "switches": [],
            "pooling": None,
        },
        "obstacle": None,
        "preprocess": {
            "resize": "squash",
            "crop_fraction": 1.0,
            "interpolation": "bilinear",
            "antialias": False,
            "channels": "rgb",
            "input_range": [0.0, 1.0],
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "margins": "floor",
            "fill": [0, 0, 0],
        },
        "preprocess_source": "attachment image_module_info",
        "unsafe_operations": [],
        "signatures": {
            "image_feature_vector": {"inputs": {"images": {"dtype": "float32", "shape": [None, 96, 96, 3]}}}
        },
    }


def test_file_in_the_directory_is_described(tiny_module, tmp_path):
    module = tmp_path / "module"
    shutil.copytree(tiny_module, module)
    text = str(describe(str(module)))
    assert "\npreprocess  squash, bilinear, RGB in [0, 1] (names of TF Hub's image signatures)\n" in text
    (module / "preprocess.yaml").write_text("preset: siglip\n")
    described = describe(str(module))
    assert (
        "\npreprocess  squash, bicubic with antialiasing, RGB in [0, 1] minus 0.5 divided by 0.5 "
        "(preprocess.yaml in the module's directory)\n"
    ) in str(described)
    assert json.loads(described.to_json())["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    (module / "preprocess.yaml").write_text("preset: clap\n")
    assert "preprocess  unknown: " in str(describe(str(module)))


def test_module_that_gives_no_embeddings_is_described_all_the_same(tmp_path):
    import tensorflow as tf

    function = tf.function(lambda text: {"length": tf.strings.length(text)}, autograph=False)
    signature = function.get_concrete_function(tf.TensorSpec([None], tf.string, "text"))
    tf.saved_model.save(tf.Module(), str(tmp_path), signatures={"default": signature})
    description = describe(str(tmp_path))
    assert description.embedding is None
    assert "embedding   none: signature 'default' takes no images: it takes text: string[?]" in str(description)
    described = json.loads(description.to_json())
    assert described["embedding"] is described["image_size"] is None
    assert described["obstacle"].startswith("signature 'default' takes no images")
    assert described["signatures"]["default"]["outputs"] == {"length": {"dtype": "int32", "shape": [None]}}


def test_built_in_network_is_named_as_what_it_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    lines = str(describe("untrained:mobilenet_v2_035_96")).splitlines()
    assert "weights     random: its vectors are for trying the pipeline out, and mean nothing" in lines
    assert lines[0] == "module      untrained:mobilenet_v2_035_96"
    assert "WARNING: untrained:mobilenet_v2_035_96 has random weights." in caplog.text


def test_archive_and_address_are_described_like_the_directory(hub_module, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    write_archive(hub_module, tmp_path / "module.tar.gz")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handles = [str(tmp_path / "module.tar.gz"), f"http://127.0.0.1:{server.server_port}/module.tar.gz"]
        found = [describe(handle) for handle in handles]
        server.shutdown()
    expected = describe(str(hub_module))
    for description, handle in zip(found, handles, strict=True):
        assert description.module.handle == handle
        assert description.module.sha256 == expected.module.sha256
        found_there = dataclasses.replace(description.module, handle="", path="")
        assert found_there == dataclasses.replace(expected.module, handle="", path="")
        assert description.embedding == expected.embedding


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Says nothing."""


def test_digest_is_checked(hub_module):
    assert describe(str(hub_module), sha256=module_digest(hub_module)).module.format == "tf1_hub"
    with pytest.raises(ModuleError, match=r"SHA-256|digest"):
        describe(str(hub_module), sha256="0" * 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["destroy"], "argument COMMAND: 'destroy' is unknown; expected one of describe, export, finetune"),
        (["describe"], "the following arguments are required: HANDLE"),
        (["describe", "a", "--jso"], "unrecognized arguments: --jso"),
        (["describe", "/nowhere/at/all"], "module /nowhere/at/all"),
        (["describe", "untrained:resnet"], "no built-in network is called 'resnet'"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--help"], ["describe", "--help"], ["export", "--help"], ["finetune", "--help"]]
)
def test_help_loads_neither_tensorflow_nor_beam(arguments):
    code = (
        "import sys\n"
        "from pipeline.commands.hub import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    assert not {'tensorflow', 'apache_beam', 'openvino'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: python -m pipeline.hub")
