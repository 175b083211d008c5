import numpy as np
import pytest

from pipeline.core.errors import ModuleError
from pipeline.savedmodel import tf1_hub as hub_format
from pipeline.savedmodel.tf1_hub import INFERENCE, TRAIN, ImageSize, Signature

# The bytes that tensorflow_hub 0.12 writes for 160x160.
ATTACHMENT = bytes.fromhex("0a11696d6167655f6d6f64756c655f696e666f12080a0608a00110a001")


def scale_graph(*, training=False):
    """Returns a graph that multiplies images by a variable, and its signature."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        keys = v1.GraphKeys
        variable = v1.get_variable(
            "scope/scale",
            [3],
            initializer=v1.zeros_initializer(),
            use_resource=True,
            collections=[keys.GLOBAL_VARIABLES],
        )
        images = v1.placeholder(tf.float32, [None, 4, 6, 3], name="images")
        scaled = tf.reduce_sum(images * variable, [1, 2], name="scaled")
        if training:
            v1.add_to_collection(keys.UPDATE_OPS, variable.assign_sub([1.0, 1.0, 1.0], read_value=False))
    return graph, Signature({"images": images}, {"default": scaled})


def make_meta_graph(*, training=False):
    graph, signature = scale_graph(training=training)
    tags = TRAIN if training else INFERENCE
    return hub_format.make_meta_graph(graph, tags, {"default": signature, "other": signature}, ImageSize(160, 160))


def write_module(directory):
    values = {"scope/scale": np.array([1, 2, 3], np.float32)}
    hub_format.write(directory, [make_meta_graph(), make_meta_graph(training=True)], values)
    return directory


def contents(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_files_of_a_module(tmp_path):
    files = contents(write_module(tmp_path / "new" / "module"))
    assert sorted(files) == [
        "saved_model.pb",
        "tfhub_module.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    assert files["tfhub_module.pb"] == b"\x08\x03"


def test_equal_modules_have_equal_bytes(tmp_path):
    assert contents(write_module(tmp_path / "a")) == contents(write_module(tmp_path / "b"))


def test_both_graph_versions_load(tmp_path):
    import tensorflow as tf

    directory = write_module(tmp_path)
    for tags in ([], ["train"]):
        module = tf.saved_model.load(str(directory), tags=tags)
        assert sorted(module.signatures) == ["default", "other"]
        result = module.signatures["other"](images=tf.ones([2, 4, 6, 3]))["default"]
        np.testing.assert_allclose(result, [[24, 48, 72]] * 2)


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:Deprecated call to .pkg_resources:DeprecationWarning")
def test_tensorflow_hub_loads_the_graph_version_for_inference(tmp_path):
    import tensorflow as tf
    import tensorflow_hub as hub

    module = hub.load(str(write_module(tmp_path)))
    np.testing.assert_allclose(module.signatures["default"](tf.ones([1, 4, 6, 3]))["default"], [[24, 48, 72]])


def test_update_operations_are_collected_and_work(tmp_path):
    import tensorflow as tf

    module = tf.saved_model.load(str(write_module(tmp_path)), tags=["train"])
    (update,) = module.graph.get_collection("update_ops")
    module.prune([], [update])()
    np.testing.assert_array_equal(module.variables[0], [0, 1, 2])


def test_checkpoint_has_the_names_of_the_variables(tmp_path):
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(write_module(tmp_path) / "variables" / "variables"))
    assert reader.get_variable_to_shape_map() == {"scope/scale": [3]}
    np.testing.assert_array_equal(reader.get_tensor("scope/scale"), [1, 2, 3])


def test_meta_graph_is_one_that_tensorflow_1_takes():
    meta_graph = make_meta_graph(training=True)
    info = meta_graph.meta_info_def
    assert list(info.tags) == ["train"]
    assert list(make_meta_graph().meta_info_def.tags) == []
    assert info.stripped_default_attrs
    assert info.tensorflow_version == "1.15.0"
    assert meta_graph.graph_def.versions.producer == 134
    operations = {operation.name: operation for operation in info.stripped_op_list.op}
    assert {node.op for node in meta_graph.graph_def.node} == set(operations)
    assert [attribute.name for attribute in operations["VarHandleOp"].attr if attribute.name == "debug_name"] == []
    for node in meta_graph.graph_def.node:
        assert {name for name in node.attr if not name.startswith("_")} <= {a.name for a in operations[node.op].attr}
        assert "_output_shapes" not in node.attr
    assert not meta_graph.HasField("saver_def")
    assert not meta_graph.HasField("object_graph_def")


def test_collections_are_those_that_the_old_library_takes():
    collections = make_meta_graph(training=True).collection_def
    assert sorted(collections) == ["hub_module_attachments", "trainable_variables", "update_ops", "variables"]
    assert list(collections["update_ops"].node_list.value) == ["AssignSubVariableOp"]
    assert "update_ops" not in make_meta_graph().collection_def


def test_signatures_have_no_method_name():
    signatures = make_meta_graph().signature_def
    assert sorted(signatures) == ["default", "other"]
    signature = signatures["default"]
    assert signature.method_name == ""
    assert signature.inputs["images"].name == "images:0"
    assert [dimension.size for dimension in signature.inputs["images"].tensor_shape.dim] == [-1, 4, 6, 3]
    assert signature.outputs["default"].name == "scaled:0"
    assert signature.outputs["default"].dtype == 1
    assert [dimension.size for dimension in signature.outputs["default"].tensor_shape.dim] == [-1, 3]


def test_image_size_is_attached_in_the_published_encoding():
    meta_graph = make_meta_graph()
    assert list(meta_graph.collection_def["hub_module_attachments"].bytes_list.value) == [ATTACHMENT]
    assert hub_format.read_image_size(meta_graph) == ImageSize(height=160, width=160)


def meta_graph_with(*attachments):
    from tensorflow.core.protobuf import meta_graph_pb2

    meta_graph = meta_graph_pb2.MetaGraphDef()
    if attachments:
        meta_graph.collection_def["hub_module_attachments"].bytes_list.value.extend(attachments)
    return meta_graph


def test_image_size_is_found_among_other_attachments():
    assert hub_format.read_image_size(meta_graph_with(b"\x0a\x05other\x12\x01x", ATTACHMENT)) == (160, 160)


@pytest.mark.parametrize(
    "attachments",
    [
        (),
        (b"\x0a\x05other\x12\x01x",),
        (b"\x0a\x11image_module_info",),
        (b"\x0a\x11image_module_info\x12\x05\x0a\x03\x08\xa0\x01",),
    ],
    ids=["none", "another", "empty", "no width"],
)
def test_no_image_size_attached(attachments):
    meta_graph = meta_graph_with(*attachments)
    before = meta_graph.SerializeToString()
    assert hub_format.read_image_size(meta_graph) is None
    assert meta_graph.SerializeToString() == before


@pytest.mark.parametrize("attachment", [b"\xff", b"\x0a\x11image_module_info\x12\x02\x0a\x09"])
def test_damaged_image_size_is_refused(attachment):
    with pytest.raises(ModuleError, match="attachment image_module_info is damaged; fetch the module again"):
        hub_format.read_image_size(meta_graph_with(attachment))


def test_written_module_is_a_hub_module(tmp_path):
    assert hub_format.is_hub_module(write_module(tmp_path))


def test_saved_model_alone_is_no_hub_module(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert not hub_format.is_hub_module(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"asks for module format 0 and features \[\]: only format 3 without features can be read"),
        (b"\x08\x02", r"asks for module format 2 and features \[\]"),
        (b"\x08\x03\x12\x04fast", r"asks for module format 3 and features \['fast'\]"),
        (b"\xff\xff", "is damaged: it holds no ModuleDef message; fetch the module again"),
    ],
)
def test_other_versions_of_the_format_are_refused(tmp_path, content, message):
    (tmp_path / "tfhub_module.pb").write_bytes(content)
    with pytest.raises(ModuleError, match=message):
        hub_format.is_hub_module(tmp_path)
