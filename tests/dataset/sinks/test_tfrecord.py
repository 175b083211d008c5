import gzip
import io

from pipeline.tfrecords.tfrecord import Record, read_records_sequential
from tests.dataset.sinks.shards import read_bytes
from tests.datasets import make_batch, stage_shards


def test_a_tfrecord_file_is_one_and_gzip_has_no_time_stamp(tmp_path):
    (plain,) = stage_shards(tmp_path, make_batch({"a": [1, 2, 3]}))
    (packed,) = stage_shards(tmp_path, make_batch({"a": [1, 2, 3]}), compression="gzip")
    for data in (read_bytes(plain), gzip.decompress(read_bytes(packed))):
        (record,) = read_records_sequential(io.BytesIO(data))
        assert isinstance(record, Record)
    assert read_bytes(packed)[4:8] == bytes(4)
    assert (plain.extension, packed.extension) == (".tfrecord", ".tfrecord.gz")
