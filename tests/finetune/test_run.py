import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from pipeline.commands.hub import main
from pipeline.core.errors import InputError, ModuleError, OutputError, UsageError
from pipeline.core.settings import ModuleConfig
from pipeline.finetune import epochs as epochs_module
from pipeline.finetune.config import FinetuneConfig
from pipeline.finetune.epochs import EpochRunner
from pipeline.finetune.run import finetune
from pipeline.hub.describe import describe
from pipeline.mobilenet import untrained
from pipeline.mobilenet.module import write_tf2
from pipeline.mobilenet.network import from_name
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.publish import write_archive
from pipeline.savedmodel.tf1_hub import is_hub_module
from tests.finetune.trainables import write_colours, write_stripes, write_trainable

NETWORK = "mobilenet_v2_035_96"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_stripes(tmp_path_factory.mktemp("records") / "train.tfrecord", 24)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    directory = tmp_path_factory.mktemp("modules")
    return {name: str(write_trainable(directory / name, name)) for name in ("tf1_hub", "tf2")}


@pytest.fixture(scope="module")
def whole_runs(modules, records, tmp_path_factory):
    """The metrics of a run of each module that nothing stopped."""
    directory = tmp_path_factory.mktemp("whole")
    return {name: run(make_config(module, records, directory / name))[2] for name, module in modules.items()}


def make_config(module, records, output, **options):
    defaults = {"epochs": 4, "head_epochs": 1, "batch_size": 8, "learning_rate": 0.1}
    return FinetuneConfig(module, (records,), "label", str(output), **{**defaults, **options})


def run(config):
    """Fine-tunes quietly; returns the result, what was told on the way, and the metrics."""
    stream = io.StringIO()
    made = finetune(config, stream)
    return made, stream.getvalue().splitlines(), json.loads(made.metrics.read_text())


def load(path, tags=()):
    import tensorflow as tf

    return tf.saved_model.load(str(path), tags=list(tags) if is_hub_module(path) else None)


def vectors(path, images):
    signatures = load(path).signatures
    name = "image_feature_vector" if "image_feature_vector" in signatures else "serving_default"
    return signatures[name](images=images)["default"].numpy()


@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
def test_new_module_is_like_the_old_one_with_other_weights(modules, records, tmp_path, module_format):
    module = modules[module_format]
    made, lines, metrics = run(make_config(module, records, tmp_path / "new"))
    assert made.path == tmp_path / "new"
    assert made.sha256 == module_digest(made.path) != module_digest(module)
    old, new = describe(ModuleConfig(module)), describe(ModuleConfig(str(made.path)))
    same = {"handle": "", "path": "", "sha256": ""}
    assert dataclasses.replace(new.module, **same) == dataclasses.replace(old.module, **same)
    assert new.embedding == old.embedding
    assert (made.path / "saved_model.pb").read_bytes() == Path(module, "saved_model.pb").read_bytes()
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    assert not np.allclose(vectors(module, images), vectors(made.path, images), atol=0.1)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.learning_curve.png", "new.metrics.json"]
    assert [line[:19] for line in lines] == [
        f"epoch {number} of 5, {'class' if number == 1 else 'whole'}" for number in range(1, 6)
    ]
    assert [epoch["phase"] for epoch in metrics["epochs"]] == ["head"] + ["network"] * 4
    best = max(metrics["epochs"][1:], key=lambda epoch: (epoch["validation_accuracy"], -epoch["validation_loss"]))
    assert metrics["best_epoch"] == made.best.epoch == best["epoch"]
    assert metrics["validation_accuracy"] == best["validation_accuracy"] > 0.9
    assert metrics["output_sha256"] == made.sha256
    assert metrics["classes"] == [{"label": label, "train_images": 20, "validation_images": 4} for label in (0, 1, 2)]
    assert made.validation_images == 12
    assert metrics["settings"]["module_sha256"] == module_digest(module)
    with Image.open(made.curve) as curve:
        assert (curve.format, curve.size) == ("PNG", (1000, 430))


def test_tf1_module_keeps_its_version_for_training(modules, records, tmp_path):
    made, _, _ = run(make_config(modules["tf1_hub"], records, tmp_path / "new"))
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    train = load(made.path, ["train"])
    assert len(train.graph.get_collection("update_ops")) == 2
    features = train.signatures["image_feature_vector"](images=images)["default"].numpy()
    beta = next(variable for variable in train.variables if variable.name == "beta:0").numpy()
    np.testing.assert_allclose(features.mean(axis=0), beta, atol=1e-4)
    again, _, metrics = run(make_config(str(made.path), records, tmp_path / "again", head_epochs=0))
    assert metrics["validation_accuracy"] > 0.9
    assert {epoch["phase"] for epoch in metrics["epochs"]} == {"network"}
    assert again.sha256 != made.sha256


def test_tf2_module_keeps_the_interface_for_training(modules, records, tmp_path):
    made, _, _ = run(make_config(modules["tf2"], records, tmp_path / "new"))
    module = load(made.path)
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(module(images).numpy(), vectors(made.path, images))
    assert len(module.trainable_variables) == 2
    assert module.regularization_losses[0]().numpy() > 0
    mean = next(variable for variable in module.variables if variable.name == "mean:0")
    before = mean.numpy()
    module(images, training=True)
    assert not np.array_equal(mean.numpy(), before)


def test_archive_as_output(modules, records, tmp_path):
    made, _, _ = run(make_config(modules["tf1_hub"], records, tmp_path / "new.tar.gz", epochs=1))
    assert describe(ModuleConfig(str(made.path))).module.sha256 == made.sha256
    assert made.metrics == tmp_path / "new.metrics.json"


def test_only_the_classifier_learns_at_first(modules, records, tmp_path, monkeypatch):
    weights = []
    original = epochs_module.save

    def save(path, state, trainer):
        weights.append(trainer.get_weights())
        original(path, state, trainer)

    monkeypatch.setattr(epochs_module, "save", save)
    run(make_config(modules["tf1_hub"], records, tmp_path / "new", head_epochs=2, epochs=1))
    count = len(weights[0]) - 2
    for first, second in zip(weights[0][:count], weights[1][:count], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(weights[0][-1], weights[1][-1])
    assert not any(np.array_equal(first, second) for first, second in zip(weights[1], weights[2], strict=True))


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
@pytest.mark.parametrize("stop_at_step", [1, 7, 8, 17, 30])
def test_stopped_run_goes_on_to_the_same_end(
    modules, records, whole_runs, tmp_path, monkeypatch, module_format, stop_at_step
):
    config = make_config(modules[module_format], records, tmp_path / "new")
    whole = whole_runs[module_format]
    monkeypatch.setattr(epochs_module, "_CHECKPOINT_S", -1)
    update, steps = Progress.update, []

    def stop(progress, task, **changes):
        update(progress, task, **changes)
        steps.append(changes)
        if len(steps) == stop_at_step:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", stop)
        with pytest.raises(Stop):
            run(config)
    assert not (tmp_path / "new").exists()
    _, lines, metrics = run(config)
    # Seven steps are an epoch, and the step at which the run was stopped was not saved any more.
    done, left = divmod(stop_at_step - 1, 7)
    goes_on = [line for line in lines if line.startswith("going on")]
    assert goes_on == ([f"going on with epoch {done + 1} of 5"] if done or left else [])
    assert len(lines) == 5 - done + bool(done or left)
    assert len(metrics["epochs"]) == 5
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate"):
        values, expected = ([epoch[name] for epoch in run["epochs"]] for run in (metrics, whole))
        assert values == pytest.approx(expected, rel=1e-3, abs=1e-4), name
    assert not (tmp_path / "new.finetune").exists()


def test_killed_process_goes_on_where_it_was(modules, records, tmp_path):
    arguments = _arguments(modules["tf1_hub"], records, tmp_path / "new")
    code = (
        "import os, signal, sys\n"
        "from rich.console import Console\n"
        "from pipeline.commands.hub import main\n"
        "print_line = Console.print\n"
        "def kill(console, text):\n"
        "    print_line(console, text)\n"
        "    if text.startswith('epoch 3'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Console.print = kill\n"
        f"main({arguments!r})\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path) == ["new.finetune"]
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline.hub", *arguments], capture_output=True, text=True, check=True
    )
    assert [line[:12] for line in finished.stderr.splitlines()] == ["going on wit", "epoch 4 of 5", "epoch 5 of 5"]
    assert f"module      {tmp_path / 'new'}\n" in finished.stdout
    assert "% of 12 images right, after epoch" in finished.stdout


def _arguments(module, records, output, *more):
    return [
        *("finetune", f"--module={module}", f"--train={records}", "--label_feature=label", f"--output={output}"),
        *("--epochs=4", "--head_epochs=1", "--batch_size=8", "--learning_rate=0.02", *more),
    ]


def start(config, monkeypatch):
    """Fine-tunes for an epoch and stops."""

    def save_and_stop(runner):
        epochs_module.save(runner.checkpoint, runner.state, runner.trainer)
        raise Stop

    monkeypatch.setattr(EpochRunner, "run", save_and_stop)
    with pytest.raises(Stop):
        run(config)
    monkeypatch.undo()


def test_checkpoint_of_another_run_is_not_taken(modules, records, tmp_path, monkeypatch):
    start(make_config(modules["tf1_hub"], records, tmp_path / "new"), monkeypatch)
    message = r"new\.finetune is of a run with other settings \(learning_rate 0\.1, now 0\.01\): start that command"
    with pytest.raises(OutputError, match=message):
        run(make_config(modules["tf1_hub"], records, tmp_path / "new", learning_rate=0.01))
    other = write_stripes(tmp_path / "other.tfrecord", 24, seed=1)
    with pytest.raises(OutputError, match=r"train_sha256 [0-9a-f]{64}, now"):
        run(make_config(modules["tf1_hub"], other, tmp_path / "new"))


@pytest.mark.parametrize("damage", [b"", b"no zip file", None])
def test_damaged_checkpoint_is_told_of(modules, records, tmp_path, monkeypatch, damage):
    config = make_config(modules["tf1_hub"], records, tmp_path / "new")
    start(config, monkeypatch)
    checkpoint = tmp_path / "new.finetune" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(OutputError, match=r"checkpoint\.npz cannot be read \(\w+\); remove its directory"):
        run(config)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"validation_fraction": 1.0}, r"--validation_fraction=1 is not between 0 and 1"),
        ({"epochs": 0}, r"--epochs=0 is too small; it must be at least 1"),
        ({"head_epochs": -1}, r"--head_epochs=-1 is too small"),
        ({"batch_size": 1}, r"--batch_size=1 is too small; it must be at least 2"),
        ({"learning_rate": float("nan")}, r"--learning_rate=nan is not a positive number"),
        ({"image_feature": "label"}, r"--label_feature=label is also the feature of the image"),
    ],
)
def test_impossible_settings(option, message):
    with pytest.raises(UsageError, match=message):
        make_config("m", "r", "o", **option)


def test_output_that_exists_is_not_touched(modules, records, tmp_path):
    (tmp_path / "new").write_text("mine")
    with pytest.raises(OutputError, match=r"new exists, and no module replaces anything"):
        run(make_config(modules["tf1_hub"], records, tmp_path / "new"))
    assert (tmp_path / "new").read_text() == "mine"


def test_nothing_is_left_behind_where_there_is_nothing_to_train_on(modules, records, tmp_path):
    with pytest.raises(InputError, match=r"0 images could be read for training"):
        run(FinetuneConfig(modules["tf1_hub"], (records,), "no_such_feature", str(tmp_path / "new")))
    assert list(tmp_path.iterdir()) == []


def test_training_that_diverges_is_told_of(modules, records, tmp_path):
    with pytest.raises(UsageError, match=r"training diverged in epoch \d: .*start with a --learning_rate below 1e\+30"):
        run(make_config(modules["tf1_hub"], records, tmp_path / "new", learning_rate=1e30))
    assert not (tmp_path / "new").exists()


def test_module_without_a_version_for_training(records, tmp_path):
    module = write_trainable(tmp_path / "module", train_version=False)
    message = r"has no graph with the tag 'train' and signature 'image_feature_vector'; take another module"
    with pytest.raises(ModuleError, match=message):
        run(make_config(str(module), records, tmp_path / "new"))


def test_saved_model_without_the_interface_for_training(records, tmp_path):
    archive = tmp_path / "module.tar.gz"
    write_archive(write_trainable(tmp_path / "module", "tf2", interface=False), archive)
    message = f"^{re.escape(str(archive))} cannot be fine-tuned: it has no `__call__` and `trainable_variables`"
    with pytest.raises(ModuleError, match=message):
        run(make_config(str(archive), records, tmp_path / "new"))


def test_tf2_classifier_gives_no_embeddings_to_train(records, tmp_path):
    module = write_trainable(tmp_path / "module", "tf2", called=5)
    with pytest.raises(ModuleError, match=r"gives \(None, 5\), but signature 'serving_default' vectors of 8 values"):
        run(make_config(str(module), records, tmp_path / "new"))


def test_default_number_of_epochs_follows_the_number_of_images(modules, records, tmp_path, monkeypatch):
    seen = []

    def note_and_stop(runner):
        seen.append(runner.schedule)
        raise Stop

    monkeypatch.setattr(EpochRunner, "run", note_and_stop)
    for batch_size in (2, 8, 64):
        with pytest.raises(Stop):
            run(make_config(modules["tf1_hub"], records, tmp_path / "new", epochs=None, batch_size=batch_size))
    assert [schedule.epochs for schedule in seen] == [27, 100, 100]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune"], "the following arguments are required: --module, --train, --label_feature, --output"),
        (_arguments("/nowhere", "r", "o"), "module /nowhere: not found"),
        (_arguments("m", "r", "o", "--image_size=5"), "argument --image_size: image size '5' is not a height and a"),
        (_arguments("m", "r", "o", "--module_sha256=5"), "module m: its SHA-256 was given as '5'"),
        (_arguments("untrained:mobilenet_v2_035_96", "r", "o", f"--module_sha256={'0' * 64}"), "module untrained:"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(f"error: {message}")
    assert captured.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("module_format", ["tf1_hub", "tf2"])
def test_mobilenet_learns_and_the_main_job_takes_it(tmp_path, module_format):
    from pipeline.dataset.reader import read_embeddings
    from pipeline.run import main as run_main

    network = from_name(NETWORK)
    write = {"tf1_hub": untrained.write_tf1_hub, "tf2": write_tf2}[module_format]
    write(network, untrained.make_values(network), tmp_path / "module")
    records = write_colours(tmp_path / "train.tfrecord", 16)
    # Classes that any network tells apart, in few large batches: no rounding, whatever the processor, costs an image.
    options = {"epochs": 5, "batch_size": 16, "learning_rate": 0.001}
    made, _, _ = run(make_config(str(tmp_path / "module"), records, tmp_path / "new", **options))
    assert made.best.validation_accuracy > 0.6
    arguments = [f"--module={made.path}", f"--input={records}", "--passthrough=label", f"--output={tmp_path / 'out'}"]
    assert run_main([*arguments, f"--module_sha256={made.sha256}"]) == 0
    rows = list(read_embeddings(str(tmp_path / "out")))
    embedded = np.concatenate([batch.column("embedding").flatten().to_numpy().reshape(-1, 1280) for batch in rows])
    labels = [label for batch in rows for (label,) in batch.column("label").to_pylist()]
    assert embedded.shape == (48, 1280)
    centred = embedded - embedded.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    nearest = (centred @ centred.T - 2 * np.eye(48)).argmax(axis=1)
    assert np.mean(np.array(labels)[nearest] == labels) > 0.6


@pytest.mark.parametrize(
    ("signature", "takes"),
    [
        ("uint8", "uint8 NHWC, any number of images"),
        ("nchw", "float32 NCHW, any number of images"),
        ("batch", "float32 NHWC, 4 images"),
    ],
)
def test_signatures_that_must_be_adapted_are_refused(signature, takes, odd_module, records, tmp_path):
    message = f"cannot be fine-tuned: signature '{signature}' takes {takes}; expected any number of images float32"
    with pytest.raises(ModuleError, match=message):
        run(make_config(odd_module, records, tmp_path / "new", signature=signature))


def test_a_module_with_another_preprocessing_is_refused(modules, records, tmp_path):
    module = shutil.copytree(modules["tf2"], tmp_path / "module")
    (module / "preprocess.yaml").write_text("preset: raw255")
    message = r"cannot be fine-tuned: its preprocessing is squash, bilinear, RGB in \[0, 255\] \(preprocess\.yaml in"
    with pytest.raises(ModuleError, match=message):
        run(make_config(str(module), records, tmp_path / "new"))


def test_a_module_whose_preprocessing_is_unknown_is_refused(records, tmp_path):
    import tensorflow as tf

    signature = tf.function(lambda x: {"y": tf.reduce_mean(x, [1, 2])}, autograph=False)
    function = signature.get_concrete_function(tf.TensorSpec([None, 16, 16, 3], tf.float32, "x"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "module"), signatures=function)
    with pytest.raises(ModuleError, match=r"does not say how its images are scaled, .*; say --preprocess="):
        run(make_config(str(tmp_path / "module"), records, tmp_path / "new"))
    with pytest.raises(ModuleError, match=r"cannot be fine-tuned: it has no `__call__` and `trainable_variables`"):
        run(make_config(str(tmp_path / "module"), records, tmp_path / "new", preprocess="hub"))
