import functools
import tarfile

import numpy as np
import pytest

from pipeline.commands.hub import main
from pipeline.core.errors import InputError, ModuleError, OutputError, UsageError
from pipeline.mobilenet import module as mobilenet_module
from pipeline.mobilenet.export import ExportConfig, export
from pipeline.mobilenet.network import mobilenet_v2
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.publish import write_archive
from pipeline.savedmodel.tf1_hub import is_hub_module
from tests.mobilenet.mobilenets import keras_features, random_values

NETWORK = mobilenet_v2(0.35, 96)
NAME = "mobilenet_v2_0.35_96.ckpt"
CLASSES = 11
BETA = "MobilenetV2/Conv/BatchNorm/beta"
MEAN = "MobilenetV2/Conv/BatchNorm/moving_mean"
SHADOW = "/ExponentialMovingAverage"


def save_checkpoint(path, values):
    """Writes a checkpoint; returns its path as a flag takes it."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(values)
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[name]) for name in names],
    )
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def graphs():
    """Builds each graph once: a graph depends on the network only, and takes longer than all the rest of an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilenet_module, "build_graph", functools.cache(mobilenet_module.build_graph))
        yield


@pytest.fixture(scope="module")
def values():
    return {**random_values(NETWORK.with_classifier(CLASSES)), "global_step": np.int64(7)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, values):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / NAME, values)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).random((3, 96, 96, 3), np.float32)


@pytest.fixture(scope="module")
def modules(tmp_path_factory, checkpoint):
    """The directories of a module in each format."""
    directory = tmp_path_factory.mktemp("modules")
    formats = ("tf1_hub", "tf2")
    return {name: export(ExportConfig(checkpoint, str(directory / name), format=name)).path for name in formats}


@pytest.fixture(scope="module")
def loaded(modules):
    """The modules, loaded for inference."""
    return {name: load(path) for name, path in modules.items()}


@pytest.fixture(scope="module")
def expected_features(values, images):
    return keras_features(NETWORK, values, images)


def load(path, tags=()):
    import tensorflow as tf

    return tf.saved_model.load(str(path), tags=list(tags) if is_hub_module(path) else None)


def call(module, images, signature="image_feature_vector"):
    return {key: value.numpy() for key, value in module.signatures[signature](images=images).items()}


def relative_l2(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def read_back(path):
    """Returns the values of a module's variables by name."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
def test_features_are_those_of_keras(loaded, images, expected_features, module_format):
    features = call(loaded[module_format], images)["default"]
    assert features.shape == (3, 1280)
    assert relative_l2(features, expected_features) < 1e-4


@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
def test_signatures_of_a_feature_vector_module(loaded, images, module_format):
    module = loaded[module_format]
    assert set(module.signatures) - {"serving_default"} == {"default", "image_feature_vector"}
    outputs = call(module, images)
    np.testing.assert_array_equal(outputs["default"], call(module, images, "default")["default"])
    np.testing.assert_array_equal(outputs["default"], outputs["MobilenetV2/global_pool"][:, 0, 0])
    assert outputs["MobilenetV2/layer_19"].shape == (3, 3, 3, 1280)


@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
def test_classification_module_gives_logits_and_features(
    tmp_path, checkpoint, values, images, expected_features, module_format
):
    exported = export(ExportConfig(checkpoint, str(tmp_path / "m"), classification=True, format=module_format))
    assert exported.network.num_classes == CLASSES
    module = load(tmp_path / "m")
    features = call(module, images)["default"]
    outputs = call(module, images, "image_classification")
    kernel = values["MobilenetV2/Logits/Conv2d_1c_1x1/weights"][0, 0]
    logits = features @ kernel + values["MobilenetV2/Logits/Conv2d_1c_1x1/biases"]
    assert relative_l2(features, expected_features) < 1e-4
    assert relative_l2(outputs["default"], logits) < 1e-5
    np.testing.assert_array_equal(outputs["default"], call(module, images, "default")["default"])
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    predictions = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["MobilenetV2/Predictions"], predictions, atol=1e-4)


def test_train_version_averages_the_statistics_of_the_batch(modules, values, images):
    import tensorflow as tf

    module = load(modules["tf1_hub"], ["train"])
    updates = module.graph.get_collection("update_ops")
    assert len(updates) == 104
    assert len(module.graph.get_collection("regularization_losses")) == 35
    module.prune("images:0", updates)(tf.constant(images))
    convolved = tf.nn.conv2d(images * 2 - 1, values["MobilenetV2/Conv/weights"], 2, "SAME").numpy().astype(np.float64)
    count = convolved[..., 0].size
    batch = {
        "moving_mean": convolved.mean((0, 1, 2)),
        "moving_variance": convolved.var((0, 1, 2)) * count / (count - 1),
    }
    averages = {variable.name: variable.numpy() for variable in module.variables}
    for name, statistic in batch.items():
        name = f"MobilenetV2/Conv/BatchNorm/{name}"
        np.testing.assert_allclose(averages[f"{name}:0"], 0.997 * values[name] + 0.003 * statistic, atol=1e-5)
    moved = {variable.name for variable in module.variables if not np.array_equal(variable, values[variable.name[:-2]])}
    assert moved == {f"{variable.name}:0" for variable in NETWORK.variables() if not variable.trainable}


def test_train_version_uses_the_statistics_of_the_batch(modules, loaded, images):
    outputs = call(load(modules["tf1_hub"], ["train"]), images)
    inference = call(loaded["tf1_hub"], images)
    assert relative_l2(outputs["default"], inference["default"]) > 0.1
    assert relative_l2(outputs["MobilenetV2/layer_1"], inference["MobilenetV2/layer_1"]) > 0.1


def test_tf2_module_has_the_reusable_interface(modules, values, images):
    module = load(modules["tf2"])
    assert (len(module.variables), len(module.trainable_variables), len(module.regularization_losses)) == (260, 156, 35)
    before = module(images).numpy()
    np.testing.assert_array_equal(before, call(module, images)["default"])
    losses = sum(float(loss()) for loss in module.regularization_losses)
    dense = [value for name, value in values.items() if name.endswith("/weights") and "Logits" not in name]
    assert losses == pytest.approx(sum(4e-5 * (v.astype(np.float64) ** 2).sum() / 2 for v in dense), rel=1e-5)
    assert relative_l2(module(images, training=True).numpy(), before) > 0.1
    assert not np.array_equal(module(images).numpy(), before), "the averages did not move"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_keras_layer_fine_tunes_a_tf2_module(modules, images):
    import tensorflow_hub as hub
    import tf_keras

    layer = hub.KerasLayer(str(modules["tf2"]), trainable=True)
    model = tf_keras.Sequential([tf_keras.layers.InputLayer((96, 96, 3)), layer, tf_keras.layers.Dense(2)])
    assert (len(model.trainable_weights), len(model.losses)) == (158, 35)
    before = {weight.name: weight.numpy() for weight in layer.weights}
    model.compile(tf_keras.optimizers.SGD(0.001), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.array([0, 1, 0]), verbose=0)
    still = {weight.name for weight in layer.weights if np.array_equal(weight, before[weight.name])}
    assert len(before) == 260
    # Not every beta moves: batch normalisation takes out what a linear layer before it adds.
    assert all(name.endswith("beta:0") for name in still)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_checkpoint_is_known_by_any_of_its_files(tmp_path, checkpoint, suffix):
    assert export(ExportConfig(checkpoint + suffix, str(tmp_path / "module"))).network == NETWORK


def test_flags_go_before_the_name(tmp_path, checkpoint):
    exported = export(ExportConfig(checkpoint, str(tmp_path / "module"), image_size=128))
    assert exported.network == mobilenet_v2(0.35, 128)


def test_checkpoint_of_another_name_needs_both_flags(tmp_path, values):
    path = save_checkpoint(tmp_path / "model.ckpt-1000", values)
    with pytest.raises(UsageError, match=r"not like mobilenet_v2_0\.5_160\.ckpt.*: give --depth_multiplier$"):
        export(ExportConfig(path, str(tmp_path / "module"), image_size=96))
    with pytest.raises(UsageError, match=r"give --image_size$"):
        export(ExportConfig(path, str(tmp_path / "module"), depth_multiplier=0.35))
    exported = export(ExportConfig(path, str(tmp_path / "module"), depth_multiplier=0.35, image_size=96))
    assert exported.network == NETWORK


def test_network_outside_of_the_family(tmp_path, checkpoint):
    with pytest.raises(ModuleError, match=r"no MobileNetV2 with depth multiplier 0\.6 and image size 96"):
        export(ExportConfig(checkpoint, str(tmp_path / "module"), depth_multiplier=0.6))


def with_shadows(values, names):
    return {**values, **{f"{name}{SHADOW}": values[name] + 1 for name in names}}


@pytest.mark.parametrize(
    ("averages", "shadows", "beta_added", "mean_added"),
    [
        ("auto", "none", 0, 0),
        ("auto", "trainable", 1, 0),
        ("raw", "trainable", 0, 0),
        ("auto", "all", 1, 1),
        ("ema", "all", 1, 1),
    ],
)
def test_averages(tmp_path, values, averages, shadows, beta_added, mean_added):
    variables = [v for v in NETWORK.variables() if shadows == "all" or (shadows == "trainable" and v.trainable)]
    path = save_checkpoint(tmp_path / NAME, with_shadows(values, [variable.name for variable in variables]))
    exported = export(ExportConfig(path, str(tmp_path / "module"), averages=averages))
    got = read_back(tmp_path / "module")
    assert len(got) == 260
    np.testing.assert_array_equal(got[BETA], values[BETA] + beta_added)
    np.testing.assert_array_equal(got[MEAN], values[MEAN] + mean_added)
    assert exported.averaged == (0 if averages == "raw" else len(variables))


def test_averages_of_some_weights_only_are_refused(tmp_path, values):
    path = save_checkpoint(tmp_path / NAME, with_shadows(values, [BETA]))
    with pytest.raises(
        InputError,
        match=r"lacks MobilenetV2/Conv/weights/ExponentialMovingAverage, .* and 152 more; .*; "
        "--averages=raw does without averages",
    ):
        export(ExportConfig(path, str(tmp_path / "module")))
    assert export(ExportConfig(path, str(tmp_path / "module"), averages="raw")).averaged == 0


def test_averages_asked_for_and_not_there(tmp_path, checkpoint):
    with pytest.raises(InputError, match=r"has no moving averages, which are called VARIABLE/ExponentialMovingAverage"):
        export(ExportConfig(checkpoint, str(tmp_path / "module"), averages="ema"))


def test_missing_variable_is_named(tmp_path, values):
    kept = {name: value for name, value in values.items() if name != MEAN}
    path = save_checkpoint(tmp_path / NAME, kept)
    with pytest.raises(InputError, match=rf"lacks {MEAN}; a MobileNetV2 of TF-Slim has all 260 variables$"):
        export(ExportConfig(path, str(tmp_path / "module")))


def test_misshapen_variable_is_named(tmp_path, values):
    path = save_checkpoint(tmp_path / NAME, {**values, MEAN: np.zeros(17, np.float32)})
    with pytest.raises(
        InputError,
        match=rf"does not fit mobilenet_v2_035_96: wrong shape of {MEAN} \(found \[17\], expected \[16\]\); "
        "is --depth_multiplier right",
    ):
        export(ExportConfig(path, str(tmp_path / "module")))


def test_wrong_depth_multiplier_names_the_first_variables(tmp_path, checkpoint):
    with pytest.raises(
        InputError,
        match=r"does not fit mobilenet_v2_050_96: wrong shape of MobilenetV2/expanded_conv_1/project/weights "
        r"\(found \[1, 1, 48, 8\], expected \[1, 1, 48, 16\]\), .* and \d+ more; is --depth_multiplier right",
    ):
        export(ExportConfig(checkpoint, str(tmp_path / "module"), depth_multiplier=0.5))


def test_variable_of_another_dtype_is_named(tmp_path, values):
    path = save_checkpoint(tmp_path / NAME, {**values, MEAN: values[MEAN].astype(np.float64)})
    with pytest.raises(InputError, match=rf"variable {MEAN} of checkpoint .* is float64, expected float32"):
        export(ExportConfig(path, str(tmp_path / "module")))


def test_value_that_is_not_finite_is_named(tmp_path, values):
    path = save_checkpoint(tmp_path / NAME, {**values, MEAN: np.full(16, np.nan, np.float32)})
    with pytest.raises(InputError, match=rf"variable {MEAN} of checkpoint .* is not finite: its training diverged"):
        export(ExportConfig(path, str(tmp_path / "module")))


def test_checkpoint_without_classifier(tmp_path, values):
    path = save_checkpoint(tmp_path / NAME, {name: v for name, v in values.items() if "Logits" not in name})
    with pytest.raises(InputError, match=r"has no classifier .*: leave --classification out"):
        export(ExportConfig(path, str(tmp_path / "module"), classification=True))
    assert export(ExportConfig(path, str(tmp_path / "module"))).network == NETWORK


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint can be read from .*mobilenet_v2_0\.5_160\.ckpt: .*"):
        export(ExportConfig(str(tmp_path / "mobilenet_v2_0.5_160.ckpt"), str(tmp_path / "module")))


def test_damaged_checkpoint(tmp_path):
    (tmp_path / f"{NAME}.index").write_bytes(b"not a checkpoint")
    (tmp_path / f"{NAME}.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(InputError, match="no checkpoint can be read from"):
        export(ExportConfig(str(tmp_path / NAME), str(tmp_path / "module")))


@pytest.mark.parametrize("name", ["module", "module.tar.gz"])
def test_existing_output_is_left_alone(tmp_path, checkpoint, name):
    output = tmp_path / name
    if output.suffix:
        output.write_text("mine")
    else:
        output.mkdir()
        (output / "mine").write_text("mine")
    with pytest.raises(OutputError, match=r"exists, and no module replaces anything; name another --output"):
        export(ExportConfig(checkpoint, str(output)))
    assert (output if output.suffix else output / "mine").read_text() == "mine"


def test_empty_directory_is_filled(tmp_path, checkpoint):
    (tmp_path / "module").mkdir()
    export(ExportConfig(checkpoint, str(tmp_path / "module")))
    assert is_hub_module(tmp_path / "module")


def test_output_that_cannot_be_written(tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written: .*; name another --output"):
        export(ExportConfig(checkpoint, str(tmp_path / "file" / "module")))


def test_archive_holds_the_module_without_an_enclosing_directory(tmp_path, modules, checkpoint):
    archive = tmp_path / "new" / "module.tar.gz"
    exported = export(ExportConfig(checkpoint, str(archive)))
    assert [path.name for path in archive.parent.iterdir()] == ["module.tar.gz"]
    with tarfile.open(archive) as tar:
        assert tar.getnames() == [
            "./saved_model.pb",
            "./tfhub_module.pb",
            "./variables",
            "./variables/variables.data-00000-of-00001",
            "./variables/variables.index",
        ]
        assert {(member.uid, member.gid, member.uname, member.mtime) for member in tar} == {(0, 0, "", 0)}
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert module_digest(tmp_path / "unpacked") == exported.sha256 == module_digest(modules["tf1_hub"])


def test_equal_modules_give_equal_archives(tmp_path, modules):
    for name in ("one", "two"):
        write_archive(modules["tf1_hub"], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_command_prints_what_it_wrote(tmp_path, checkpoint, capsys):
    output = tmp_path / "module"
    assert main(["export", f"--checkpoint={checkpoint}", f"--output={output}", "--classification"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"module   {output}",
        f"sha256   {module_digest(output)}",
        f"network  mobilenet_v2_035_96, 1280 features, {CLASSES} classes",
        "values   262 variables, 0 of them from moving averages",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: --checkpoint, --output"),
        (
            ["--checkpoint=a", "--output=b", "--averages=some"],
            "argument --averages: 'some' is unknown; expected one of auto, raw, ema",
        ),
        (["--checkpoint=a", "--output=b", "--image_size=big"], "argument --image_size: invalid int value: 'big'"),
        (["--checkpoint=a", "--output=b", "--class"], "unrecognized arguments: --class"),
        (["--checkpoint=/nowhere/a", "--output=/nowhere/b"], "no checkpoint can be read from /nowhere/a"),
    ],
)
def test_command_reports_errors_in_one_line(capsys, flags, message):
    assert main(["export", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
