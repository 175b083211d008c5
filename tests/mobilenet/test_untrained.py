import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.mobilenet import untrained
from pipeline.mobilenet.network import DEPTH_MULTIPLIERS, mobilenet_v2
from pipeline.savedmodel.digest import module_digest
from pipeline.savedmodel.tf1_hub import ImageSize, is_hub_module, read_image_size

NAME = "mobilenet_v2_050_160"
DIGEST = "189d94ef7c0b544920c2c7816e6ef025e948020e34554541123964dca33106d1"


@pytest.fixture(scope="module")
def module_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("untrained") / "module"
    untrained.build(NAME, directory)
    return directory


@pytest.fixture(scope="module")
def embed(module_directory):
    import tensorflow as tf

    module = tf.saved_model.load(str(module_directory), tags=[])

    def embed(images):
        return module.signatures["image_feature_vector"](images=tf.constant(images))["default"].numpy()

    return embed


def photos():
    """Returns crops of two photographs, uint8 [12, 240, 240, 3]."""
    from sklearn.datasets import load_sample_images

    corners = [(row, column) for row in (0, 180) for column in (0, 200, 400)]
    return np.stack(
        [
            image[row : row + 240, column : column + 240]
            for image in load_sample_images().images
            for row, column in corners
        ]
    )


def resized(images):
    import tensorflow as tf

    return tf.image.resize(images.astype(np.float32) / 255, [160, 160]).numpy()


def relative_l2(a, b):
    return np.linalg.norm(a - b, axis=-1) / np.linalg.norm(a, axis=-1)


def test_digest_is_the_same_on_every_machine(module_directory):
    assert module_digest(module_directory) == DIGEST


def test_module_has_the_signatures_of_the_card(module_directory):
    from tensorflow.core.protobuf import saved_model_pb2

    assert is_hub_module(module_directory)
    saved_model = saved_model_pb2.SavedModel.FromString((module_directory / "saved_model.pb").read_bytes())
    assert [list(graph.meta_info_def.tags) for graph in saved_model.meta_graphs] == [[], ["train"]]
    for graph in saved_model.meta_graphs:
        assert read_image_size(graph) == ImageSize(160, 160)
        assert sorted(graph.signature_def) == ["default", "image_feature_vector"]
        for signature in graph.signature_def.values():
            (images,) = signature.inputs.values()
            assert [dimension.size for dimension in images.tensor_shape.dim] == [-1, 160, 160, 3]
            outputs = {
                name: [dimension.size for dimension in output.tensor_shape.dim]
                for name, output in signature.outputs.items()
            }
            assert outputs.pop("default") == [-1, 1280]
            assert outputs["MobilenetV2/global_pool"] == [-1, 1, 1, 1280]
            assert outputs["MobilenetV2/layer_2/output"] == [-1, 80, 80, 8]
            assert all(name.startswith("MobilenetV2/") for name in outputs)
        collections = graph.collection_def
        assert len(collections["variables"].bytes_list.value) == 260
        assert len(collections["model_variables"].bytes_list.value) == 260
        assert len(collections["trainable_variables"].bytes_list.value) == 156
        assert len(collections["regularization_losses"].node_list.value) == 35
    train = saved_model.meta_graphs[1].collection_def["update_ops"].node_list.value
    assert len(train) == 104
    assert all(name.endswith("/AssignSubVariableOp") for name in train)
    assert "update_ops" not in saved_model.meta_graphs[0].collection_def


def test_one_grey_level_of_noise_hardly_moves_a_vector(embed):
    images = photos()
    noise = np.random.default_rng(0).choice([-1, 1], images.shape)
    vectors = embed(resized(images))
    moved = relative_l2(vectors, embed(resized(np.clip(images + noise, 0, 255))))
    assert moved.max() < 0.03
    between = relative_l2(vectors[:, np.newaxis], vectors)[~np.eye(len(vectors), dtype=bool)]
    assert between.min() > 10 * moved.max()


def test_vectors_are_of_a_sound_scale_and_every_unit_responds(embed):
    vectors = embed(resized(photos()))
    assert vectors.shape == (12, 1280)
    assert vectors.dtype == np.float32
    assert 0.5 < vectors.mean() < 2
    assert vectors.max() < 6
    assert (vectors.max(axis=0) > 0).all()
    assert (vectors.std(axis=0) > 0.01).all()


def test_train_version_normalises_with_the_statistics_of_the_batch(module_directory, embed):
    import tensorflow as tf

    images = resized(photos())
    module = tf.saved_model.load(str(module_directory), tags=["train"])
    features = module.signatures["image_feature_vector"](images=tf.constant(images))
    batch = features["MobilenetV2/layer_2/output"].numpy()
    np.testing.assert_allclose(batch.mean((0, 1, 2)), 0.5, atol=1e-3)
    np.testing.assert_allclose(batch.std((0, 1, 2)), 1, atol=1e-2)
    assert relative_l2(embed(images), features["default"].numpy()).min() > 0.01


@pytest.mark.parametrize("multiplier", DEPTH_MULTIPLIERS)
def test_weights_are_exact_multiples_that_float64_can_sum_in_any_order(multiplier):
    network = mobilenet_v2(multiplier, 96)
    values = untrained.make_values(network)
    assert {name: value.shape for name, value in values.items()} == {v.name: v.shape for v in network.variables()}
    for name, value in values.items():
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
        if name.endswith("weights"):
            scaled = value * 2.0**14
            assert np.array_equal(scaled, np.rint(scaled))
            assert np.abs(value).max() < 8
        if name.endswith("moving_variance"):
            assert value.min() > 1e-3


def test_unknown_name_writes_nothing(tmp_path):
    with pytest.raises(ModuleError, match="no built-in network is called 'resnet'"):
        untrained.build("resnet", tmp_path / "module")
    assert list(tmp_path.iterdir()) == []
