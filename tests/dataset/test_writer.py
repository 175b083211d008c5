import pytest

from pipeline.core.failures import Failure
from pipeline.core.records import EmbeddingBatch
from pipeline.dataset import writer as writer_module
from pipeline.dataset.reader import read_failures, read_failures_file
from pipeline.dataset.sinks.base import SinkSettings, make_sinks
from pipeline.dataset.verify import verify
from pipeline.dataset.writer import BundleWriter
from tests.dataset.sinks.shards import HOSTILE_KEYS, read_bytes, rows_of
from tests.datasets import TOKEN, add_wave, make_batch, make_failure, stage, stage_shards, unlocked


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


def test_failures_go_to_files_of_bounded_size(tmp_path, monkeypatch):
    failures = [make_failure(f"{i:02d}") for i in range(10)]
    line_bytes = len(failures[0].to_json()) + 1
    monkeypatch.setattr(writer_module, "_LINES_FILE_BYTES", 3 * line_bytes - 1)
    batches = [make_batch({}, failures[:4]), make_batch({}, failures[4:])]
    shards = stage_shards(tmp_path, *batches)
    assert [(shard.rows, shard.size_bytes) for shard in shards] == [(n, n * line_bytes) for n in (3, 3, 3, 1)]
    assert [shard.first_key for shard in shards] == [failures[i].key for i in (0, 3, 6, 9)]
    add_wave(tmp_path / "out", "00000", *batches)
    assert len(list((tmp_path / "out/failures").iterdir())) == 4
    assert list(read_failures(str(tmp_path / "out"))) == failures
    assert verify(str(tmp_path / "out")).problems == ()


@pytest.mark.parametrize("formats", [("tfrecord",), ("parquet", "tfrecord")])
def test_zero_and_duplicate_vectors_are_counted_once(tmp_path, formats):
    vectors = {"a": [0, 0, 0], "b": [1, 2, 3], "c": [1, 2, 3], "d": [0, 0, 0], "e": [-0.0, 0, 0], "f": [1, 2, 4]}
    (bundle,) = stage(tmp_path, make_batch(vectors), make_batch({"g": [1, 2, 3]}), formats=formats)
    assert (bundle.counts.zero_vectors, bundle.counts.duplicate_vectors) == (3, 3)


def test_nothing_makes_no_files(tmp_path):
    assert stage_shards(tmp_path, make_batch({})) == []
    assert not (tmp_path / "staging").exists()


def test_what_was_abandoned_stays_staged(tmp_path):
    settings = SinkSettings("gzip", b"{}")
    writer = BundleWriter(unlocked(tmp_path), "00000", make_sinks(("tfrecord", "parquet")), settings)
    writer.add(make_batch({"a": [1, 2, 3]}, [make_failure("b")]))
    writer.abandon()
    assert writer.close().shards == ()
    assert len(list((tmp_path / "staging" / TOKEN / "00000").iterdir())) == 3
    assert not (tmp_path / "embeddings").exists()
