import datetime

import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import EmbeddingBatch
from pipeline.dataset.reader import read_failures_file
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.writer import BundleWriter
from tests.dataset.sinks.shards import HOSTILE_KEYS, read_bytes, rows_of
from tests.datasets import make_batch, make_failure, stage, stage_shards


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: repr(key[:12]))
def test_any_key_survives_in_tfrecord_and_failures(tmp_path, key):
    failure = Failure(key, "/in/\udcff\n", "decode", "empty", "two\nlines \udcff")
    rows, failures = stage_shards(tmp_path, EmbeddingBatch(make_batch({key: [1, 2, 3]}).rows, (failure,), ("/in/x",)))
    assert [row["key"] for row in rows_of(rows)] == [key]
    assert list(read_failures_file(failures.path)) == [failure]
    assert read_bytes(failures).count(b"\n") == 1


def test_failures_and_records_are_counted_by_reason_and_file(tmp_path):
    batch = make_batch(
        {"a": [1, 2, 3], "b": [1, 2, 3]},
        [
            make_failure("x", source="/in/a.tfrecord@90"),
            make_failure("y", source="/in/a.tfrecord@95-99", reason="corrupt_record"),
            make_failure("z", source="/in/b.tfrecord", reason="read_error"),
        ],
        source="/in/a.tfrecord@5",
    )
    (bundle,) = stage(tmp_path, batch)
    assert bundle.counts.embedded == 2
    assert bundle.counts.inputs == {"/in/a.tfrecord": 4, "/in/b.tfrecord": 1}
    assert bundle.counts.reasons == {"corrupt_record": 1, "read_error": 1, "truncated": 1}


@pytest.mark.parametrize("formats", [("tfrecord",), ("parquet", "tfrecord")])
def test_zero_and_duplicate_vectors_are_counted_once(tmp_path, formats):
    vectors = {"a": [0, 0, 0], "b": [1, 2, 3], "c": [1, 2, 3], "d": [0, 0, 0], "e": [-0.0, 0, 0], "f": [1, 2, 4]}
    (bundle,) = stage(tmp_path, make_batch(vectors), make_batch({"g": [1, 2, 3]}), formats=formats)
    assert (bundle.counts.zero_vectors, bundle.counts.duplicate_vectors) == (3, 3)


def test_nothing_makes_no_files(tmp_path):
    assert stage_shards(tmp_path, make_batch({})) == []
    assert not (tmp_path / "staging").exists()


def test_what_was_abandoned_stays_staged(tmp_path):
    settings = SinkSettings("gzip", datetime.datetime.now(datetime.UTC), b"{}")
    writer = BundleWriter(str(tmp_path), "00000", make_sinks(("tfrecord", "parquet")), settings)
    writer.add(make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
    writer.abandon()
    assert writer.close().shards == ()
    assert len(list((tmp_path / "staging/00000").iterdir())) == 3
    assert not (tmp_path / "embeddings").exists()
