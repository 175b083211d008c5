import gzip
import re
import zlib

import pytest

from pipeline.core.errors import InputError
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile
from pipeline.inputs.find import find_inputs
from pipeline.inputs.probe import check_records
from pipeline.testing import make_example, make_tfrecord, png_bytes
from tests.inputs.archives import make_tar

RECORDS = make_tfrecord([make_example({"image/encoded": bytes([i])}) for i in range(5)])


def files_of(tmp_path, **contents):
    files = []
    for name, content in contents.items():
        path = tmp_path / name.replace("_", ".")
        path.write_bytes(content)
        files += find_inputs(InputConfig((str(path),), input_format="tfrecord")).by_path()
    return files


class TestCheckRecords:
    @pytest.mark.parametrize(
        "contents",
        [
            {"a": RECORDS},
            {"a_gz": gzip.compress(RECORDS)},
            {"a": b"", "b": b"nonsense" * 10, "c": RECORDS},
            {"a": b"x" + RECORDS},
            {"a": b"\0" * 12 + RECORDS[12:]},
            {"a": RECORDS[:-3]},
            {"a_gz": gzip.compress(RECORDS)[:-10]},
            {"a": gzip.compress(RECORDS)},
            {"a": zlib.compress(RECORDS)},
            {"a_gz": RECORDS},
        ],
    )
    def test_something_to_read(self, tmp_path, contents):
        check_records(files_of(tmp_path, **contents))

    def test_images_are_not_looked_at(self, tmp_path):
        check_records([InputFile("nowhere.jpg", "a", "images", 0, 0.0)])

    @pytest.mark.parametrize(
        ("contents", "what"),
        [
            ({"a": b""}, "a is empty"),
            ({"a": b"nonsense" * 100}, "a is no TFRecord"),
            ({"a": b"", "b": b"nonsense" * 100}, "a is empty, nor is any of the other 1 inputs"),
            ({"a": RECORDS[:11]}, "a is no TFRecord"),
            ({"a_gz": b"not gzip"}, "a.gz is no TFRecord"),
            ({"a_gz": gzip.compress(b"nonsense" * 100)}, "a.gz is no TFRecord"),
            ({"a_gz": gzip.compress(RECORDS)[:8]}, "a.gz is no TFRecord"),
            ({"a": b"PK\x03\x04" + bytes(100)}, "a is no TFRecord, but a ZIP archive: unpack it"),
            ({"a": png_bytes()}, "a is no TFRecord, but for --input_format=images by its first bytes"),
            (
                {"a": make_tar([("a.jpg", b"a")])},
                "a is no TFRecord, but for --input_format=webdataset by its first bytes",
            ),
            (
                {"a_gz": gzip.compress(make_tar([("a.jpg", b"a")]))},
                "a.gz is no TFRecord, but for --input_format=webdataset by its first bytes",
            ),
        ],
    )
    def test_nothing_to_read(self, tmp_path, contents, what):
        message = (
            f"no records: {tmp_path}/{what}; expected image files, TFRecords of tf.train.Example, tar or "
            "Parquet files; see --input_format"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            check_records(files_of(tmp_path, **contents))

    def test_a_file_that_cannot_be_read_is_one_failure_among_others(self, tmp_path):
        files = files_of(tmp_path, a=RECORDS, b=RECORDS)
        (tmp_path / "a").unlink()
        check_records(files)

    def test_a_file_that_cannot_be_read(self, tmp_path):
        (file,) = files_of(tmp_path, a=RECORDS)
        (tmp_path / "a").unlink()
        with pytest.raises(InputError, match=rf"^{tmp_path}/a cannot be read: .*No such file"):
            check_records([file])
