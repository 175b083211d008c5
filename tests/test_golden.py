"""The formats on disk: `tests/golden/v1` to `v3` are data sets of these format versions and stay readable for good.

`write`, below, writes a data set of the present version; it wrote `v3`, and earlier ones wrote the others. When a
format changes on purpose, its version rises and another directory joins these; what is in these never changes.
"""

import dataclasses
import datetime
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.core.failures import Failure
from pipeline.core.json import from_json, to_json
from pipeline.core.records import Feature
from pipeline.dataset.columns import from_text
from pipeline.dataset.compact import compact
from pipeline.dataset.metadata import next_wave, read_manifests, read_spec
from pipeline.dataset.ownership import remove_remains, start_over
from pipeline.dataset.reader import read_embeddings, read_failures
from pipeline.dataset.table import read_table
from pipeline.dataset.tables import read_entries, read_retried
from pipeline.dataset.verify import verify
from pipeline.embedding.dataset_spec import Spec, differing_fields
from pipeline.inputs.base import InputFile
from pipeline.tfrecords.examples import encode_example
from pipeline.tfrecords.tfrecord import read_records
from tests.dataset.planning import Covered
from tests.datasets import SPEC, add_wave, complete, contents, entry, make_batch, unlocked

GOLDEN = Path(__file__).parent / "golden"
V1, V2, V3 = (GOLDEN / name for name in ("v1", "v2", "v3"))
RETRIED = {V1: "b@20", V2: "/in/b@20-31", V3: "/in/b@20-31"}
PARQUET = {V1: "embeddings", V2: "embeddings", V3: "embeddings-parquet"}

every_version = pytest.mark.parametrize("golden", [V1, V2, V3], ids=lambda path: path.name)

WRITTEN = "embeddings-00000-00000-of-00001"
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
    add_wave(output, "00001", second, inputs=changed, retried=(RETRIED[V3],), compression="gzip", image_feature="img")


def without_what_varies(manifest: bytes) -> dict[str, object]:
    fields = json.loads(manifest)
    # Which bytes a protobuf map or a Parquet file becomes is not fixed.
    for output in (*fields["outputs"], *fields["inputs"], *fields["retried"]):
        del output["crc32c"], output["size_bytes"]
    return {**fields, "seconds": 0}


@every_version
def test_the_data_set_is_readable_and_complete(golden):
    report = verify(str(golden))
    assert (report.problems, report.strays) == ((), ())
    assert (report.waves, report.rows, report.superseded, report.failures) == (2, 2, 1, 1)
    rows = {row["key"]: row for batch in read_embeddings(str(golden)) for row in batch.to_pylist()}
    assert rows[b"a"] == {"key": b"a", "embedding": [4, 5, 6]}
    (old,) = (row for key, row in rows.items() if key != b"a")
    assert old["key"] == b"\xff\n"
    assert old["label"] == [3, -1]
    assert old["name"] == [b"\xff", "ünï".encode()]
    assert old["box"] == [0.5, 0.25]
    assert list(read_failures(str(golden))) == [FAILURES[1]]


@every_version
def test_it_is_a_table(golden):
    table = read_table(golden)
    assert table.schema.metadata == {b"spec.json": to_json(read_spec(str(golden)))}
    rows = {row.pop("key"): row for row in table.read_all().to_pylist()}
    times = {key: row.pop("event_timestamp") for key, row in rows.items()}
    no_features = {"box": None, "label": None, "name": None}
    assert rows["a"] == {"embedding": [4, 5, 6], **no_features}
    old = rows["\\xff\n"]
    assert (old["label"], old["name"], old["box"]) == ([3, -1], [b"\xff", "ünï".encode()], [0.5, 0.25])
    first, second = read_manifests(str(golden))
    assert times == {"a": second.committed, "\\xff\n": first.committed}
    assert first.committed - datetime.datetime.fromisoformat(first.started) == datetime.timedelta(seconds=first.seconds)


@every_version
def test_what_is_read_from_it(golden):
    spec = read_spec(str(golden))
    assert dataclasses.replace(spec, format_version=3) == SPEC
    assert differing_fields(spec, SPEC) == []
    first, second = read_manifests(str(golden))
    assert list(read_entries(str(golden), first)) == [
        entry("a"),
        entry("b", size_bytes=31, records=2),
        entry("bad\udcff\n.jpg"),
    ]
    assert list(read_entries(str(golden), second)) == [entry("a", size_bytes=11, mtime_s=2.5)]
    assert (first.embedded, first.failed, first.input_keys) == (2, 2, ("offset",))
    assert first.failures_by_reason == {"corrupt_record": 1, "not_an_image": 1}
    assert first.started == "2024-05-17T08:30:15.250000+00:00"
    assert (list(read_retried(str(golden), first)), first.image_feature) == ([], "image/encoded")
    assert (list(read_retried(str(golden), second)), second.image_feature) == ([RETRIED[golden]], "img")
    assert second.outputs[0].path == "embeddings/embeddings-00001-00000-of-00001.tfrecord.gz"


def test_the_versions_differ_only_where_they_should():
    for golden, version in ((V1, 1), (V2, 2), (V3, 3)):
        assert read_spec(str(golden)).format_version == version
        assert {manifest.format_version for manifest in read_manifests(str(golden))} == {version}
    first, second = contents(V1), contents(V2)
    assert [name for name in second if name not in first] == [
        "manifests/00000-inputs-00000.parquet",
        "manifests/00001-inputs-00000.parquet",
        "manifests/00001-retried-00000.parquet",
    ]
    assert {**json.loads(first["spec.json"]), "format_version": 2} == json.loads(second["spec.json"])
    third = contents(V3)
    assert set(third) - set(second) == {f"embeddings-parquet/{WRITTEN}.parquet", "schema.pbtxt"}
    assert set(second) - set(third) == {f"embeddings/{WRITTEN}.parquet"}


def test_what_is_written_now_is_the_same(tmp_path):
    write(tmp_path)
    now, then = contents(tmp_path), contents(V3)
    assert now.keys() == then.keys()
    # Optional fields may be added within a version: their defaults are what was done before.
    assert now["spec.json"] == to_json(SPEC)
    assert from_json(Spec, then["spec.json"]) == SPEC
    for name in then:
        if name.endswith(".json") and name.startswith("manifests/"):
            assert without_what_varies(now[name]) == without_what_varies(then[name])
            columns = from_text(json.loads(now[name])["columns"]).names
            assert columns == (["box", "label", "name"] if "00000" in name else [])
        elif name.startswith("manifests/"):
            assert pq.read_schema(tmp_path / name).equals(pq.read_schema(V3 / name), check_metadata=True)
            assert pq.read_table(tmp_path / name).equals(pq.read_table(V3 / name))
        elif name == "schema.pbtxt":  # protobuf may change how it writes text
            first, second = (text_format.Parse(text[name], schema_pb2.Schema()) for text in (now, then))
            assert first == second
        elif name.startswith("failures/"):
            assert now[name] == then[name]
            assert then[name] == "".join(f"{failure.to_json()}\n" for failure in FAILURES).encode()


@every_version
def test_a_tfrecord_file_holds_examples(golden):
    with (golden / "embeddings/embeddings-00000-00000-of-00001.tfrecord").open("rb") as file:
        records = list(read_records(file))
    expected = encode_example(
        {"key": Feature("bytes", (b"a",)), "embedding": Feature("float", (1.0, 2.0, 3.0)), **FEATURES}
    )
    assert len(records) == 2
    assert records[0].stop == records[1].offset
    assert len(records[0].data) == len(expected)
    assert sorted(records[0].data) == sorted(expected)  # but for the order of the features


@every_version
def test_a_parquet_file_has_the_same_schema(tmp_path, golden):
    write(tmp_path)
    name = f"{WRITTEN}.parquet"
    now = pq.ParquetFile(tmp_path / "embeddings-parquet" / name)
    then = pq.ParquetFile(golden / PARQUET[golden] / name)
    assert now.schema_arrow.equals(then.schema_arrow)
    columns = [name for name in then.schema_arrow.names if name != "event_timestamp"]
    assert now.read(columns).equals(then.read(columns))
    assert then.schema_arrow.metadata == {b"spec.json": (golden / "spec.json").read_bytes()}
    assert now.schema_arrow.metadata == {b"spec.json": to_json(SPEC)}


@pytest.fixture
def copy(golden, tmp_path):
    for name, data in contents(golden).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@every_version
def test_it_can_be_compacted(copy):
    assert compact(str(copy)).superseded == 1
    assert verify(str(copy)).rows == 2
    (manifest,) = read_manifests(str(copy))
    assert manifest.format_version == 3
    inputs = {item.name: item for item in read_entries(str(copy), manifest)}
    assert sorted(inputs) == ["a", "b", "bad\udcff\n.jpg"]
    assert inputs["a"] == entry("a", size_bytes=11, mtime_s=2.5)
    assert list(read_failures(str(copy))) == [FAILURES[1]]
    assert {Path(item.path).parent.name: item.format for item in manifest.files("embeddings")} == {
        "embeddings": "tfrecord"
    }
    assert [path.name for path in (copy / "embeddings-parquet").iterdir()] == [
        f"embeddings-{manifest.wave}-00000-of-00001.parquet"
    ]
    assert complete(copy)


@every_version
def test_it_goes_on(copy):
    remove_remains(unlocked(copy))
    bad = InputFile("/in/bad\udcff\n.jpg", "bad\udcff\n.jpg", "images", 10, 1.5)
    done = [InputFile("/in/a", "a", "images", 11, 2.5), InputFile("/in/b", "b", "tfrecord", 31, 1.5), bad]
    new = InputFile("/in/c", "c", "images", 10, 1.5)
    found = Covered(copy).plan([*done, new], failures=read_failures(str(copy)))
    assert ([wave.files for wave in found.waves], found.skipped) == ([[new], [bad]], 3)
    manifest = add_wave(
        copy,
        next_wave(read_manifests(str(copy))),
        make_batch({"c": [7, 8, 9], bad.name: [1, 1, 1]}),
        inputs=[entry("c")],
        retried=[bad.path],
    )
    assert (manifest.wave, manifest.format_version) == ("00002", 3)
    assert Covered(copy).plan([*done, new]).waves == []
    assert verify(str(copy)).rows == 4
    assert list(read_failures(str(copy))) == []
    assert complete(copy)


@every_version
def test_it_starts_over(copy):
    start_over(unlocked(copy), SPEC)
    names = [name for name in contents(copy) if name != "schema.pbtxt"]
    assert names == ["manifests/00002.json", "spec.json"]
    assert complete(copy)
