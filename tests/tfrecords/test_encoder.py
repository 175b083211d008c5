from importlib import metadata

import pyarrow as pa
import pytest
from tfx_bsl.coders import example_coder

from pipeline.tfrecords.encoder import make_encoder
from pipeline.tfrecords.examples import parse_example

CHANGED = (
    f"tfx-bsl {metadata.version('tfx-bsl')} changed RecordBatchToExamplesEncoder, which pipeline.tfrecords.encoder "
    "relies on"
)


def test_rows_become_examples():
    rows = pa.RecordBatch.from_pydict({"image": pa.array([[b"a"], [b"b"]]), "label": pa.array([[1], [2, 3]])})
    examples = make_encoder().encode(rows)
    records = [
        parse_example(data, address="x", source="x", image_feature="image", passthrough=("label",)) for data in examples
    ]
    assert [(record.image, record.features["label"].values) for record in records] == [(b"a", (1,)), (b"b", (2, 3))], (
        CHANGED
    )


def test_an_encoder_that_is_elsewhere(monkeypatch):
    monkeypatch.delattr(example_coder, "RecordBatchToExamplesEncoder")
    with pytest.raises(ImportError, match=CHANGED):
        make_encoder()
