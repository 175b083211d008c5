import pytest

from pipeline.core.errors import OutputError
from pipeline.dataset.sinks import files
from pipeline.storage import filesystem
from pipeline.storage.checksum import crc32c
from tests.dataset.sinks.shards import read_bytes, rows_of
from tests.datasets import make_batch, stage_shards


@pytest.mark.parametrize(
    ("formats", "compression"),
    [(("tfrecord",), "none"), (("tfrecord",), "gzip"), (("parquet",), "none"), (("tfrecord", "parquet"), "gzip")],
)
def test_rows_come_back_and_size_and_checksum_are_the_files(tmp_path, formats, compression):
    batches = [make_batch({f"k{b}{i}": [b, i, 0.5] for i in range(3)}) for b in range(2)]
    staged = stage_shards(tmp_path, *batches, formats=formats, compression=compression)
    assert [shard.format for shard in staged] == list(formats)
    for shard in staged:
        data = read_bytes(shard)
        assert (shard.size_bytes, shard.crc32c, shard.rows) == (len(data), crc32c(data), 6)
        assert shard.first_key == b"k00"
        assert [(row["key"], row["embedding"]) for row in rows_of(shard)] == [
            (f"k{b}{i}".encode(), [b, i, 0.5]) for b in range(2) for i in range(3)
        ]


def test_a_full_file_is_closed_and_the_next_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SHARD_BYTES", 100)
    staged = stage_shards(tmp_path, *(make_batch({str(i): [i, 2, 3]}) for i in range(6)))
    assert len(staged) > 1
    assert [row["key"] for shard in staged for row in rows_of(shard)] == [str(i).encode() for i in range(6)]


def test_a_damaged_file_is_not_read_as_rows(tmp_path):
    for formats in (("tfrecord",), ("parquet",)):
        (shard,) = stage_shards(tmp_path, make_batch({"a": [1, 2, 3]}), formats=formats)
        data = read_bytes(shard)
        filesystem.write_atomically(shard.path, data[:-7] + b"damaged")
        with pytest.raises(OutputError, match=r"cannot be read: .*; run python -m pipeline\.verify"):
            rows_of(shard)
