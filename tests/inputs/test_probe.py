import gzip
import logging
import re
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, ReadSettings
from pipeline.inputs.find import find_inputs
from pipeline.inputs.probe import check_images, check_records
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


LABELS = {
    "parquet": {"label": [1, 2]},
    "tfrecord": make_tfrecord([make_example({"label": 1})]),
    "tar": make_tar([("a.cls", b"1")]),
}
SHARD = {
    "parquet": {"image": [png_bytes()] * 3},
    "tfrecord": RECORDS,
    "tar": make_tar([("a.jpg", b"a" * 5000)]),
}


def write(path, content):
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    else:
        path.write_bytes(content)


class TestCheckImages:
    def check(self, *inputs, **options):
        config = InputConfig(tuple(map(str, inputs)), **options)
        return [file.name for file in check_images(find_inputs(config), ReadSettings(config, 1 << 20)).by_path()]

    @pytest.mark.parametrize("name", ["a-labels", "t-0x", "z-labels"])
    @pytest.mark.parametrize("kind", LABELS)
    def test_a_table_of_labels_does_not_decide_for_the_shards(self, tmp_path, caplog, kind, name):
        write(tmp_path / f"{name}.{kind}", LABELS[kind])
        for index in (0, 1):
            write(tmp_path / f"t-{index}.{kind}", SHARD[kind])
        expected = sorted([f"{name}.{kind}", f"t-0.{kind}", f"t-1.{kind}"])
        assert self.check(tmp_path) == expected
        (tmp_path / "x.jpg").write_bytes(b"x")
        assert self.check(tmp_path) == sorted([*expected, "x.jpg"])
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        is_seen = name == "a-labels"
        assert len(warnings) == 2 * is_seen
        assert all(
            re.match(rf"{tmp_path}/a-labels\.{kind} (has|holds) .*; its records count", text) for text in warnings
        )

    def test_the_largest_file_is_looked_at(self, tmp_path):
        for name in ("a", "z"):
            write(tmp_path / f"{name}.parquet", LABELS["parquet"])
        write(tmp_path / "m.parquet", {"image": [png_bytes()] * 9, "path": [bytes(range(256)) * 99] * 9})
        assert self.check(tmp_path) == ["a.parquet", "m.parquet", "z.parquet"]

    def test_no_file_of_a_kind_has_images(self, tmp_path, caplog):
        for name in "abcd":
            write(tmp_path / f"{name}.parquet", LABELS["parquet"])
        text = f"{tmp_path}/a.parquet has label, none of which holds images; say --image_feature=NAME"
        with pytest.raises(InputError, match=f"^{re.escape(text)}"):
            self.check(tmp_path)
        (tmp_path / "x.jpg").write_bytes(b"x")
        assert self.check(tmp_path) == ["x.jpg"]
        assert caplog.messages[-1].startswith(f"left out 4 files of --input_format=parquet: {text}")
        with pytest.raises(InputError, match=f"^{re.escape(text)}"):
            self.check(tmp_path / "d.parquet", tmp_path)

    def test_a_damaged_file_keeps_its_kind(self, tmp_path):
        write(tmp_path / "a.parquet", LABELS["parquet"])
        (tmp_path / "b.parquet").write_bytes(b"PAR1")
        (tmp_path / "x.jpg").write_bytes(b"x")
        assert self.check(tmp_path) == ["a.parquet", "b.parquet", "x.jpg"]
