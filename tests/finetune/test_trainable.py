import itertools

import numpy as np
import pytest

from pipeline.finetune.trainable import MovingAverages, load_trainable
from pipeline.finetune.training import Score, Tally, learning_rate
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.signatures import choose_signature
from tests.finetune.trainables import DECAY, WEIGHT_DECAY, activations, initial_values, write_trainable


@pytest.fixture(scope="module", params=["tf1_hub", "tf2"])
def directory(request, tmp_path_factory):
    return str(write_trainable(tmp_path_factory.mktemp("modules") / request.param, request.param))


@pytest.fixture
def module(directory):
    found = read_module(directory)
    return load_trainable(found, choose_signature(found))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((5, 6, 16, 16, 3), np.float32)


def values_of(module):
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in module.variables}


def forward(module):
    import tensorflow as tf

    return tf.function(lambda images: module.features(images, training=True), autograph=False)


def test_training_uses_the_statistics_of_the_batch_and_moves_their_averages(module, images):
    features = forward(module)(images[0]).numpy()
    x = activations(initial_values(), images[0])
    np.testing.assert_allclose(features, (x - x.mean(0)) / np.sqrt(x.var(0) + 0.001), atol=1e-4)
    values = values_of(module)
    np.testing.assert_allclose(values["mean"], (1 - DECAY) * x.mean(0), atol=1e-6)
    np.testing.assert_allclose(values["variance"], DECAY + (1 - DECAY) * x.var(0), atol=1e-6)


def test_inference_sees_what_training_did_once_synchronized(module, images):
    import tensorflow as tf

    kernel = next(variable for variable in module.variables if variable.name.startswith("kernel"))
    kernel.assign(kernel * 2)
    module.synchronize()
    features = module.features(tf.constant(images[0]), training=False).numpy()
    np.testing.assert_allclose(features, 2 * activations(initial_values(), images[0]) / np.sqrt(1.001), rtol=1e-4)


def test_regularization_losses_are_the_modules_own(module):
    expected = WEIGHT_DECAY * np.square(initial_values()["kernel"]).sum() / 2
    assert float(module.regularization_loss()) == pytest.approx(expected, rel=1e-5)


def test_gradients_move_the_trainable_variables_only(module):
    assert sorted(variable.name.removesuffix(":0") for variable in module.trainable_variables) == ["beta", "kernel"]
    assert len(module.variables) == 4


def test_settled_averages_are_those_of_the_weights_of_now(module, images):
    step = forward(module)
    for batch in images:
        step(batch)
    before = values_of(module)
    averages = MovingAverages(module, step, images[0])
    assert len(averages) == 2
    for name, value in values_of(module).items():
        np.testing.assert_array_equal(value, before[name])
    averages.settle(list(images))
    settled = values_of(module)
    weights = DECAY ** np.arange(len(images) - 1, -1, -1)
    for name, statistic in (("mean", np.mean), ("variance", np.var)):
        of_batches = np.stack([statistic(activations(before, batch), axis=0) for batch in images])
        np.testing.assert_allclose(settled[name], np.average(of_batches, axis=0, weights=weights), atol=1e-5)
    for name in ("kernel", "beta"):
        np.testing.assert_array_equal(settled[name], before[name])


def test_statistics_that_no_step_moves_are_left_alone(module, images):
    before = values_of(module)
    averages = MovingAverages(module, lambda images: None, images[0])
    assert len(averages) == 0
    averages.settle(list(images))
    for name, value in values_of(module).items():
        np.testing.assert_array_equal(value, before[name])


def test_written_module_has_the_values_of_now(module, images, tmp_path):
    for variable in module.variables:
        variable.assign(variable + 0.5)
    module.write(tmp_path / "new")
    written = read_module(str(tmp_path / "new"))
    again = load_trainable(written, choose_signature(written))
    for name, value in values_of(again).items():
        np.testing.assert_array_equal(value, values_of(module)[name])


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(0.1, step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert all(first > second for first, second in itertools.pairwise(rates[5:]))
    assert max(rates) == 0.1
    assert 0 < rates[-1] < 1e-4
    assert learning_rate(0.1, 0, 1) == 0.1


def test_tally_weighs_batches_by_their_size():
    tally = Tally()
    tally.add(3, 1.0, 2)
    tally.add(1, 3.0, 0)
    assert tally.score() == Score(1.5, 0.5)
