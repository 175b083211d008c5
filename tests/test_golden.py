"""The formats on disk, as version 1 has them: `tests/golden/v1` is such a data set and must stay readable for good.

It was written by `write`, below. When a format changes on purpose, its version rises and another directory
joins this one; what is in this one never changes.
"""

import json
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.core.failures import Failure
from pipeline.core.json import to_json
from pipeline.core.records import Feature
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import read_manifests, read_spec
from pipeline.dataset.reader import read_embeddings, read_failures
from pipeline.dataset.verify import verify
from pipeline.tfrecords.examples import encode_example
from pipeline.tfrecords.tfrecord import read_records
from tests.datasets import SPEC, add_wave, contents, entry, make_batch

V1 = Path(__file__).parent / "golden" / "v1"

FEATURES = {
    "label": Feature("int64", (3, -1)),
    "name": Feature("bytes", (b"\xff", "ünï".encode())),
    "box": Feature("float", (0.5, 0.25)),
}
FAILURES = (
    Failure(b"b@20", "/in/b@20-31", "read", "corrupt_record", "no record can be made out in 11 bytes: made up"),
    Failure(b"bad\xff\n.jpg", "/in/bad\udcff\n.jpg", "decode", "not_an_image", "made up"),
)


def write(output: Path) -> None:
    """Writes the data set: a wave of both formats, and a compressed one in which `a` is newer."""
    first = make_batch({"a": [1, 2, 3], b"\xff\n": [0.1, -0.0, 1e-30]}, FAILURES, features=FEATURES)
    inputs = (entry("a"), entry("b", size_bytes=31, records=2), entry("bad\udcff\n.jpg"))
    add_wave(output, "00000", first, inputs=inputs, formats=("tfrecord", "parquet"))
    second = make_batch({"a": [4, 5, 6]})
    changed = (entry("a", size_bytes=11, mtime_s=2.5),)
    add_wave(output, "00001", second, inputs=changed, retried=("b@20",), compression="gzip", image_feature="img")


def without_what_varies(manifest: bytes) -> dict[str, object]:
    fields = json.loads(manifest)
    for output in fields["outputs"]:  # which bytes a protobuf map becomes is not fixed
        del output["crc32c"], output["size_bytes"]
    return {**fields, "seconds": 0}


def test_the_data_set_is_readable_and_complete():
    report = verify(str(V1))
    assert (report.problems, report.strays) == ((), ())
    assert (report.waves, report.rows, report.superseded, report.failures) == (2, 2, 1, 1)
    rows = {row["key"]: row for batch in read_embeddings(str(V1)) for row in batch.to_pylist()}
    assert rows[b"a"] == {"key": b"a", "embedding": [4, 5, 6]}
    (old,) = (row for key, row in rows.items() if key != b"a")
    assert old["key"] == b"\xff\n"
    assert old["label"] == [3, -1]
    assert old["name"] == [b"\xff", "ünï".encode()]
    assert old["box"] == [0.5, 0.25]
    assert list(read_failures(str(V1))) == [FAILURES[1]]


def test_what_is_read_from_it():
    assert read_spec(str(V1)) == SPEC
    first, second = read_manifests(str(V1))
    assert [item.path for item in first.inputs] == ["/in/a", "/in/b", "/in/bad\udcff\n.jpg"]
    assert (first.inputs[1].records, first.embedded, first.failed) == (2, 2, 2)
    assert first.failures_by_reason == {"corrupt_record": 1, "not_an_image": 1}
    assert first.started == "2024-05-17T08:30:15.250000+00:00"
    assert (second.retried, second.image_feature) == (("b@20",), "img")
    assert second.outputs[0].path == "embeddings/embeddings-00001-00000-of-00001.tfrecord.gz"


def test_what_is_written_now_is_the_same(tmp_path):
    write(tmp_path)
    now, then = contents(tmp_path), contents(V1)
    assert now.keys() == then.keys()
    assert now["spec.json"] == then["spec.json"] == to_json(SPEC)
    for name in then:
        if name.startswith("manifests/"):
            assert without_what_varies(now[name]) == without_what_varies(then[name])
            assert list(json.loads(now[name])) == list(json.loads(then[name]))
        elif name.startswith("failures/"):
            assert now[name] == then[name]
            assert then[name] == "".join(f"{failure.to_json()}\n" for failure in FAILURES).encode()


def test_a_tfrecord_file_holds_examples(tmp_path):
    with (V1 / "embeddings/embeddings-00000-00000-of-00001.tfrecord").open("rb") as file:
        records = list(read_records(file))
    expected = encode_example(
        {"key": Feature("bytes", (b"a",)), "embedding": Feature("float", (1.0, 2.0, 3.0)), **FEATURES}
    )
    assert len(records) == 2
    assert records[0].stop == records[1].offset
    assert len(records[0].data) == len(expected)
    assert sorted(records[0].data) == sorted(expected)  # but for the order of the features


def test_a_parquet_file_has_the_same_schema(tmp_path):
    write(tmp_path)
    name = "embeddings/embeddings-00000-00000-of-00001.parquet"
    now, then = pq.ParquetFile(tmp_path / name), pq.ParquetFile(V1 / name)
    assert now.schema_arrow.equals(then.schema_arrow, check_metadata=True)
    assert now.read().equals(then.read())
    assert then.schema_arrow.metadata[b"spec.json"] == to_json(SPEC)


def test_it_can_be_compacted(tmp_path):
    for name, data in contents(V1).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert compact(str(tmp_path)).superseded == 1
    assert verify(str(tmp_path)).rows == 2
