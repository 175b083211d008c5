import uuid

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.core.errors import OutputError
from pipeline.core.records import Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import next_wave, read_manifests
from pipeline.dataset.ownership import start_over
from tests.datasets import SPEC, add_wave, complete, entry, make_batch, read_vectors, unlocked

LABEL = {"label": Feature("int64", (3,))}


def read_schema(output):
    return text_format.Parse((output / "schema.pbtxt").read_bytes(), schema_pb2.Schema())


def features(output):
    """The copied features: name to type, and the largest number of values, 0 for any."""
    found = {
        item.name: (schema_pb2.FeatureType.Name(item.type), item.value_count.max)
        for item in read_schema(output).feature
    }
    del found["key"], found["embedding"]
    return found


def test_new_features_are_added_and_compaction_forgets_the_dropped_ones(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=LABEL), inputs=[entry("a")])
    assert features(tmp_path) == {"label": ("INT", 1)}
    more = {"name": Feature("bytes", (b"x",)), "box": Feature("float", (1, 2))}
    add_wave(tmp_path, "00001", make_batch({"a": [1, 2, 3]}, features=more), inputs=[entry("a")])
    assert features(tmp_path) == {"label": ("INT", 1), "name": ("BYTES", 1), "box": ("FLOAT", 0)}
    add_wave(tmp_path, "00002", make_batch({"b": [1, 2, 3]}), inputs=[entry("b")])
    assert set(features(tmp_path)) == {"label", "name", "box"}
    compact(str(tmp_path))
    assert features(tmp_path) == {"name": ("BYTES", 1), "box": ("FLOAT", 0)}
    assert complete(tmp_path)


def test_a_feature_that_gets_lists_or_another_type(tmp_path):
    values = [Feature("int64", (1, 2)), Feature("int64", (1,))], [Feature("int64", (1,)), Feature("bytes", (b"x",))]
    for index, (first, second) in enumerate(zip(*values, strict=True)):
        rows = make_batch({f"{index}": [1, 2, 3]}, features={"list": first, "mixed": second})
        add_wave(tmp_path, f"{index:05d}", rows)
    assert features(tmp_path) == {"list": ("INT", 0), "mixed": ("BYTES", 1)}


def test_only_tfrecords_have_a_schema(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=LABEL), formats=("parquet",))
    assert not (tmp_path / "schema.pbtxt").exists()


def test_a_data_set_that_starts_over(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, features=LABEL))
    start_over(unlocked(tmp_path), SPEC)
    assert not read_schema(tmp_path).feature
    add_wave(tmp_path, next_wave(read_manifests(str(tmp_path))), make_batch({"a": [1, 2, 3]}))
    assert features(tmp_path) == {}


def test_a_damaged_schema_is_an_error_of_one_line(tmp_path):
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}))
    (tmp_path / "schema.pbtxt").write_text("feature {")
    message = r"^.*schema\.pbtxt is damaged: .*; remove it, and run python -m pipeline\.compact$"
    with pytest.raises(OutputError, match=message):
        add_wave(tmp_path, "00001", make_batch({"b": [1, 2, 3]}))
    assert [manifest.wave for manifest in read_manifests(str(tmp_path))] == ["00000"]


def save(batch, folder):
    with pa.ipc.new_file(f"{folder}/{uuid.uuid4().hex}", batch.schema) as writer:
        writer.write(batch)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_tfx_bsl_reads_the_vectors_to_the_bit(tmp_path, compression):
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from tfx_bsl.public.tfxio import TFExampleRecord

    vectors = np.random.default_rng(7).standard_normal((4, 3)).astype(np.float32)
    rows = {f"k{index}": vector for index, vector in enumerate(vectors)}
    both = {**LABEL, "name": Feature("bytes", (b"x", b"y"))}
    first = make_batch({key: rows[key] for key in ("k0", "k1")}, features=both)
    second = make_batch({key: rows[key] for key in ("k2", "k3")})
    add_wave(tmp_path, "00000", first, inputs=[entry("a")], compression=compression)
    add_wave(tmp_path, "00001", second, inputs=[entry("b")], compression=compression)
    source = TFExampleRecord(f"{tmp_path}/embeddings/*.tfrecord*", schema=read_schema(tmp_path))
    found = tmp_path / "found"
    found.mkdir()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | source.BeamSource() | beam.Map(save, str(found))
    adapter = source.TensorAdapter()
    assert adapter.TypeSpecs()["embedding"].shape == [None, 3]
    read = {
        key: (vector.tobytes(), label, name)
        for file in found.iterdir()
        for batch in pa.ipc.open_file(file).read_all().to_batches()
        for key, vector, label, name in zip(
            batch.column(batch.schema.names.index("key")).flatten().to_pylist(),
            adapter.ToBatchTensors(batch)["embedding"].numpy(),
            batch.column(batch.schema.names.index("label")).to_pylist(),
            batch.column(batch.schema.names.index("name")).to_pylist(),
            strict=True,
        )
    }
    assert {key: item[0] for key, item in read.items()} == read_vectors(tmp_path)
    assert [item[1:] for _, item in sorted(read.items())] == [([3], [b"x", b"y"])] * 2 + [(None, None)] * 2
