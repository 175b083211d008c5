import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands.hub import main
from pipeline.core.errors import ModuleError
from pipeline.core.settings import EngineConfig, ModuleConfig
from pipeline.embedding.embedder_spec import find_function
from pipeline.finetune.run import FinetuneConfig, finetune
from pipeline.hub.describe import describe
from pipeline.savedmodel.messages import parse_saved_model
from pipeline.savedmodel.module import read_module
from pipeline.savedmodel.safety import UnsafeOperation, check_operations, find_unsafe_operations, list_operations
from pipeline.testing import jpeg_bytes


def save(directory, body, **attributes):
    """Writes a TF2 SavedModel whose vectors are those of `body(images)`; returns its path."""
    import tensorflow as tf

    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def serve(images):
        return {"default": body(images)}

    tf.saved_model.save(module, str(directory), signatures={"default": serve})
    return str(directory)


def mean(images):
    import tensorflow as tf

    return tf.reduce_mean(images, [1, 2])


def found(path):
    """Returns what operations of a module reach, by name."""
    return {operation.operation: operation.reaches for operation in read_module(path).unsafe_operations}


def after(operation, images):
    """Returns the vectors of images, and has an operation run before."""
    import tensorflow as tf

    with tf.control_dependencies([operation]):
        return mean(images)


def write_file(path):
    import tensorflow as tf

    return lambda images: after(tf.io.write_file(path, "written"), images)


def read_in_a_loop(images):
    import tensorflow as tf

    return tf.map_fn(lambda image: tf.reduce_mean(image, [0, 1]) + _length("/etc/hostname"), images)


def _length(path):
    import tensorflow as tf

    return tf.cast(tf.strings.length(tf.io.read_file(path)), tf.float32)


def read_in_a_branch(images):
    import tensorflow as tf

    return tf.cond(tf.reduce_mean(images) > 2, lambda: mean(images) + _length("/etc/hostname"), lambda: mean(images))


def call_python(images):
    import tensorflow as tf

    return tf.numpy_function(np.mean, [images], tf.float32) + mean(images)


def call_python_eagerly(images):
    import tensorflow as tf

    return tf.py_function(lambda x: x, [images], tf.float32)[0, 0] + mean(images)


def restore_foreign_variables(images):
    import tensorflow as tf

    restored = tf.raw_ops.RestoreV2(prefix="/elsewhere", tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.float32])
    return mean(images) + restored[0]


def save_variables(images):
    import tensorflow as tf

    tensors = [tf.constant(1.0)]
    return after(
        tf.raw_ops.SaveV2(prefix="/elsewhere", tensor_names=["v"], shape_and_slices=[""], tensors=tensors), images
    )


def print_to_file(images):
    import tensorflow as tf

    return after(tf.raw_ops.PrintV2(input="text", output_stream="file:///tmp/log"), images)


def list_files(images):
    import tensorflow as tf

    return mean(images) + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32)


def read_records(images):
    import tensorflow as tf

    return mean(images) + tf.cast(tf.data.TFRecordDataset("/elsewhere").reduce(0, lambda n, _: n + 1), tf.float32)


def watch(images):
    import tensorflow as tf

    return mean(tf.raw_ops.DebugIdentityV2(input=images, debug_urls=["grpc://example.org:1"]))


@pytest.mark.parametrize(
    ("body", "operations"),
    [
        (write_file("/elsewhere"), {"WriteFile": "files"}),
        (read_in_a_loop, {"ReadFile": "files"}),
        (read_in_a_branch, {"ReadFile": "files"}),
        (list_files, {"MatchingFiles": "files"}),
        (read_records, {"TFRecordDataset": "files"}),
        (restore_foreign_variables, {"RestoreV2": "files"}),
        (save_variables, {"SaveV2": "files"}),
        (print_to_file, {"PrintV2": "files"}),
        (call_python, {"PyFunc": "processes"}),
        (call_python_eagerly, {"EagerPyFunc": "processes"}),
        (watch, {"DebugIdentityV2": "network"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_operations_that_reach_beyond_the_module_are_found(tmp_path, body, operations):
    assert found(save(tmp_path / "module", body)) == operations


def harmless_print(images):
    import tensorflow as tf

    return after(tf.raw_ops.PrintV2(input="text", output_stream="stderr"), images)


@pytest.mark.parametrize("body", [mean, harmless_print])
def test_module_that_only_computes_is_safe(tmp_path, body):
    import tensorflow as tf

    assert found(save(tmp_path / "module", body, variable=tf.Variable(1.0))) == {}


def test_modules_of_this_package_are_safe(tiny_module, tiny_tf1_module):
    assert found(str(tiny_module)) == found(str(tiny_tf1_module)) == {}


def test_savers_of_tensorflow_1_are_safe(tmp_path):
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.get_variable("v", [3], use_resource=True)
        meta_graph = v1.train.export_meta_graph(saver_def=v1.train.Saver().as_saver_def(), graph=graph)
    assert {"SaveV2", "RestoreV2"} <= {node.op for node in meta_graph.graph_def.node}
    assert find_in([meta_graph]) == {}


def find_in(meta_graphs):
    """Returns what operations of TensorFlow's MetaGraphDefs reach, by name."""
    from tensorflow.core.protobuf import saved_model_pb2

    parsed = parse_saved_model(saved_model_pb2.SavedModel(meta_graphs=meta_graphs).SerializeToString())
    return {operation.operation: operation.reaches for operation in find_unsafe_operations(parsed.meta_graphs)}


def meta_graph_of(path):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(Path(path, "saved_model.pb").read_bytes()).meta_graphs[0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A SavedModel of TensorFlow 2 with a variable, and so with a saver."""
    import tensorflow as tf

    return save(tmp_path_factory.mktemp("plain") / "module", mean, variable=tf.Variable(1.0))


def test_saver_that_a_signature_uses_is_no_saver(plain):
    graph = meta_graph_of(plain)
    assert find_in([graph]) == {}
    graph.signature_def["default"].outputs["default"].name = graph.saver_def.save_tensor_name
    assert find_in([graph]) == {"MergeV2Checkpoints": "files", "SaveV2": "files"}


def test_saver_that_an_initializer_uses_is_no_saver(plain):
    graph = meta_graph_of(plain)
    graph.collection_def["saved_model_main_op"].node_list.value.append(graph.saver_def.restore_op_name)
    assert find_in([graph]) == {"RestoreV2": "files"}


def test_saver_that_a_function_of_an_object_uses_is_no_saver(plain):
    """No signature leads to the function, but whoever loads the module may call it."""
    graph = meta_graph_of(plain)
    function = graph.graph_def.library.function.add()
    function.signature.name = "restore_more"
    function.node_def.add(name="restore", op="RestoreV2")
    assert find_in([graph]) == {}
    graph.object_graph_def.concrete_functions["restore_more"].SetInParent()
    assert find_in([graph]) == {"RestoreV2": "files"}


def test_restoring_must_not_save(plain):
    graph = meta_graph_of(plain)
    restore = next(node for node in graph.graph_def.node if node.name == graph.saver_def.restore_op_name)
    restore.input.append("^" + graph.saver_def.save_tensor_name.removesuffix(":0"))
    assert find_in([graph]) == {"MergeV2Checkpoints": "files", "SaveV2": "files"}


def test_saver_may_only_save_and_restore(plain):
    graph = meta_graph_of(plain)
    function = next(f for f in graph.graph_def.library.function if "traced_restore" in f.signature.name)
    function.node_def.add(name="more", op="WriteFile")
    assert find_in([graph]) == {"WriteFile": "files"}


def test_functions_that_nothing_calls_are_searched_too(plain):
    graph = meta_graph_of(plain)
    function = graph.graph_def.library.function.add()
    function.signature.name = "unused"
    function.node_def.add(name="read", op="ReadFile")
    assert find_in([graph]) == {"ReadFile": "files"}


def test_every_graph_version_is_searched(tiny_tf1_module):
    graph = meta_graph_of(tiny_tf1_module)
    other = type(graph).FromString(graph.SerializeToString())
    other.meta_info_def.tags.append("train")
    other.graph_def.node.add(name="evil", op="WriteFile")
    assert find_in([graph]) == {}
    assert find_in([graph, other]) == {"WriteFile": "files"}


@pytest.fixture(scope="module")
def with_table(tmp_path_factory):
    """A SavedModel with a table that is filled from one of its assets."""
    import tensorflow as tf

    directory = tmp_path_factory.mktemp("table")
    (directory / "words.txt").write_text("a\nb\n")
    index = tf.lookup.TextFileIndex
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(directory / "words.txt"), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        ),
        -1,
    )
    return save(
        directory / "module",
        lambda images: mean(images) + tf.cast(table.lookup(tf.constant("b")), tf.float32),
        table=table,
    )


def test_table_from_an_asset_is_safe(with_table):
    graph = meta_graph_of(with_table)
    assert "InitializeTableFromTextFileV2" in str(graph.graph_def)
    assert found(with_table) == {}


TEXT_TABLE = {"InitializeTableFromTextFileV2": "files"}


@pytest.mark.parametrize("filename", ["../words.txt", "/etc/passwd", "a\\..\\..\\b", "C:\\words.txt"])
def test_asset_outside_of_the_module_is_none(with_table, filename):
    graph = meta_graph_of(with_table)
    graph.asset_file_def[0].filename = filename
    assert find_in([graph]) == TEXT_TABLE


def test_table_from_any_other_file_is_unsafe(with_table):
    graph = meta_graph_of(with_table)
    graph.graph_def.node.add(name="path", op="Const")
    next(node for node in graph.graph_def.node if node.op == "AssignVariableOp").input[1] = "path"
    assert find_in([graph]) == TEXT_TABLE


def test_table_whose_path_another_caller_chooses_is_unsafe(with_table):
    graph = meta_graph_of(with_table)
    call = next(node for node in graph.graph_def.node if "initializer" in node.attr["f"].func.name)
    other = graph.graph_def.node.add()
    other.CopyFrom(call)
    other.name = "other"
    graph.graph_def.node.add(name="path", op="Const")
    other.input[0] = "path"
    assert find_in([graph]) == TEXT_TABLE


def test_table_whose_path_is_computed_is_unsafe(tmp_path):
    import tensorflow as tf

    def fill(images):
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        filled = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename="/etc/hostname", key_index=-2, value_index=-1
        )
        return after(filled, images)

    assert found(save(tmp_path / "module", fill)) == TEXT_TABLE


@pytest.mark.parametrize(
    ("operation", "reach"),
    [
        *((name, "files") for name in ("WholeFileReaderV2", "TextLineDataset", "ExperimentalMatchingFilesDataset")),
        *((name, "files") for name in ("CSVDatasetV2", "SqlDataset", "CacheDatasetV2", "SaveDatasetV2", "LMDBDataset")),
        *((name, "files") for name in ("SnapshotDatasetV2", "DatasetToTFRecord", "ExperimentalLMDBDataset")),
        *((name, "files") for name in ("CreateSummaryFileWriter", "WriteScalarSummary", "WriteSummary", "DumpTensor")),
        *((name, "files") for name in ("LoadAndRemapMatrix", "GenerateVocabRemapping", "FixedLengthRecordReaderV2")),
        *((name, "processes") for name in ("PyFuncStateless",)),
        *((name, "network") for name in ("RpcCall", "RpcServerStart", "RemoteCall", "DataServiceDatasetV4")),
        *((name, "network") for name in ("RegisterDatasetV2", "_Send", "_HostRecv", "CollectiveReduceV2")),
        *((name, "network") for name in ("ConfigureDistributedTPU",)),
        *((name, None) for name in ("Conv2D", "ReadVariableOp", "TensorArrayReadV3", "StatefulPartitionedCall")),
        *((name, None) for name in ("RestoreFromNowhere", "ShardedFilename", "Print", "XlaCallModule", "Assert")),
    ],
)
def test_kinds_of_operations(operation, reach):
    from tensorflow.core.protobuf import meta_graph_pb2

    graph = meta_graph_pb2.MetaGraphDef()
    graph.graph_def.node.add(name="node", op=operation)
    assert find_in([graph]) == ({operation: reach} if reach else {})


def test_variable_that_is_saved_as_it_is_initialized_is_unsafe(plain):
    graph = meta_graph_of(plain)
    save_node = graph.saver_def.save_tensor_name.removesuffix(":0")
    graph.graph_def.node.add(name="evil/Assign", op="AssignVariableOp", input=["evil", "zero", f"^{save_node}"])
    assert find_in([graph]) == {"MergeV2Checkpoints": "files", "SaveV2": "files"}


def test_address_that_a_caller_fills_in_is_unsafe(plain):
    graph = meta_graph_of(plain)
    node = graph.graph_def.library.function[0].node_def.add(name="print", op="PrintV2")
    node.attr["output_stream"].s = b"stdout"
    assert find_in([graph]) == {}
    node.attr["output_stream"].placeholder = "where"
    assert find_in([graph]) == {"PrintV2": "files"}


def test_second_node_of_a_name_hides_none(plain):
    graph = meta_graph_of(plain)
    for operation in ("WriteFile", "NoOp"):
        graph.graph_def.node.add(name="same", op=operation)
    library = graph.graph_def.library.function
    function = library.add()
    function.signature.name = library[0].signature.name
    function.node_def.add(name=library[0].node_def[0].name, op="PyFunc")
    assert find_in([graph]) == {"WriteFile": "files", "PyFunc": "processes"}


def test_graph_that_turns_in_circles(plain):
    graph = meta_graph_of(plain)
    nodes = graph.graph_def.node
    nodes.add(name="one", op="Identity", input=["two"])
    nodes.add(name="two", op="Identity", input=["one"])
    nodes.add(name="table", op="InitializeTableFromTextFileV2", input=["handle", "one"])
    nodes.add(name="short", op="InitializeTableFromTextFileV2")
    for number in range(3000):
        nodes.add(name=f"n{number}", op="Identity", input=[f"n{number + 1}"])
    nodes.add(name="deep", op="InitializeTableFromTextFileV2", input=["handle", "n0"])
    assert find_in([graph]) == TEXT_TABLE


def test_operations_in_words():
    operations = [UnsafeOperation(f"Op{n}", "files", ("f:a", "b")) for n in range(7)]
    assert str(operations[0]) == "Op0 (files; node f:a and 1 more)"
    text = list_operations(operations)
    assert text.endswith("Op4 (files; node f:a and 1 more) and 2 more kinds")
    assert list_operations(operations[:1]) == "Op0 (files; node f:a and 1 more)"


def test_safe_module_is_taken_without_a_word(caplog):
    check_operations("m", (), allow=False)
    assert caplog.messages == []


def test_unsafe_module_is_refused_unless_allowed(tmp_path, caplog):
    path = save(tmp_path / "module", write_file("/elsewhere"))
    with pytest.raises(
        ModuleError, match=rf"module {path} has operations that reach beyond it: WriteFile \(files; node"
    ):
        find_function(ModuleConfig(path), EngineConfig())
    with caplog.at_level(logging.WARNING):
        assert find_function(ModuleConfig(path, allow_unsafe_module=True), EngineConfig()).path == path
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("pipeline"))
    assert message.startswith(f"WARNING: module {path} has operations that reach beyond it: WriteFile")


def test_every_command_that_takes_a_module_refuses_an_unsafe_one(tmp_path, capsys, monkeypatch):
    from pipeline.run import main as run_main

    target = tmp_path / "written"
    path = save(tmp_path / "module", write_file(str(target)))
    (tmp_path / "image.jpg").write_bytes(jpeg_bytes())
    arguments = [f"--module={path}", f"--input={tmp_path / 'image.jpg'}", f"--output={tmp_path / 'out'}"]
    assert run_main(arguments) == 2
    assert "say --allow_unsafe_module" in capsys.readouterr().err
    assert not target.exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModuleError, match="WriteFile"):
        finetune(FinetuneConfig(path, ("records",), "label", str(tmp_path / "new")))

    assert run_main([*arguments, "--allow_unsafe_module"]) == 0
    assert target.read_text() == "written"


def test_describe_names_unsafe_operations(tmp_path, capsys):
    path = save(tmp_path / "module", write_file("/elsewhere"))
    found = describe(ModuleConfig(str(path)))
    operation = found.module.unsafe_operations[0]
    assert f"unsafe      WriteFile (files; node {operation.nodes[0]})" in str(found).splitlines()
    assert main(["describe", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unsafe_operations"] == [
        {"operation": "WriteFile", "reaches": "files", "nodes": list(operation.nodes)}
    ]


def test_operation_that_tensorflow_does_not_know_cannot_be_loaded(tmp_path, plain):
    import shutil

    from tensorflow.core.protobuf import saved_model_pb2

    from pipeline.savedmodel.freezing import freeze
    from pipeline.savedmodel.signatures import choose_signature

    path = tmp_path / "module"
    shutil.copytree(plain, path)
    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for function in saved_model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = "MyOwnMean" if node.op == "Mean" else node.op
    (path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    with pytest.raises(ModuleError, match=r"cannot be loaded: .*MyOwnMean"):
        freeze(str(path), choose_signature(read_module(str(path))))
