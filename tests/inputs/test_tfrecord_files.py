import gzip
import io
import os

import pytest

from pipeline.core.records import ImageRecord
from pipeline.inputs import tfrecord_files
from pipeline.inputs.base import NO_END, InputFile
from pipeline.inputs.compressed import START_BYTES
from pipeline.storage import filesystem
from pipeline.testing import make_example, make_tfrecord
from pipeline.tfrecords.gzip_stream import GzipStream
from tests.inputs.reading import breaking, make_task, read_between

PROBE_BYTES = 16 << 20
LARGE_BYTES = 200 << 20
HUGE_HEADER = bytes.fromhex("0000000000010000 aa3d6be4")
"""The header of a record of 2**40 bytes."""
NOISE = os.urandom(1 << 20)


class Endless(io.RawIOBase):
    """A file of `LARGE_BYTES`: a beginning, then one piece again and again."""

    def __init__(self, beginning, piece):
        self._beginning, self._piece, self._position = beginning, piece, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: LARGE_BYTES}[whence]
        return self._position

    def tell(self):
        return self._position

    def readinto(self, buffer):
        if self._position < len(self._beginning):
            data = self._beginning[self._position :]
        else:
            data = self._piece[(self._position - len(self._beginning)) % len(self._piece) :]
        data = data[: min(len(buffer), max(0, LARGE_BYTES - self._position))]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@pytest.fixture
def read_bytes(monkeypatch):
    """The numbers of bytes that were read from the file and, if it is compressed, from its uncompressed content."""
    counts = {"stored": 0, "content": 0}

    class CountingGzipStream(GzipStream):
        def read(self, size, /):
            data = super().read(size)
            counts["content"] += len(data)
            return data

    monkeypatch.setattr(tfrecord_files, "GzipStream", CountingGzipStream)
    return counts


def describe(file, name, counts, monkeypatch):
    """Returns the problem of a file, given as a stream."""

    class Counting(io.RawIOBase):
        def readable(self):
            return True

        def seek(self, offset, whence=os.SEEK_SET):
            return file.seek(offset, whence)

        def tell(self):
            return file.tell()

        def readinto(self, buffer):
            count = file.readinto(buffer)
            counts["stored"] += count
            return count

    monkeypatch.setattr(filesystem, "open_read", lambda path: Counting())
    input_file = InputFile(f"/in/{name}", name, "tfrecord", LARGE_BYTES, 0.0)
    return tfrecord_files.TFRecordFiles().describe_problem(input_file)


class TestProbe:
    """The launcher reads no more than the beginning of a file to find out whether it has records."""

    @pytest.mark.parametrize("piece", [bytes(1 << 20), NOISE], ids=["zeros", "noise"])
    def test_a_large_file_without_records(self, read_bytes, monkeypatch, piece):
        assert describe(Endless(b"", piece), "a", read_bytes, monkeypatch) == "is no TFRecord"
        assert 1 << 20 < read_bytes["stored"] <= PROBE_BYTES + START_BYTES

    def test_a_large_compressed_file_without_records(self, read_bytes, monkeypatch):
        file = io.BytesIO(gzip.compress(bytes(LARGE_BYTES), 1))
        assert describe(file, "a.gz", read_bytes, monkeypatch) == "is no TFRecord"
        assert 1 << 20 < read_bytes["content"] <= PROBE_BYTES

    def test_a_compressed_file_with_much_padding(self, read_bytes, monkeypatch):
        file = Endless(gzip.compress(b""), bytes(1 << 20))
        assert describe(file, "a.gz", read_bytes, monkeypatch) == "is no TFRecord"
        assert 1 << 20 < read_bytes["stored"] <= PROBE_BYTES + START_BYTES
        assert read_bytes["content"] == 0

    @pytest.mark.parametrize("first", [HUGE_HEADER, make_tfrecord([bytes(PROBE_BYTES)])[:12]], ids=["huge", "probe"])
    def test_the_header_decides_about_a_record_larger_than_the_probe(self, read_bytes, monkeypatch, first):
        assert describe(Endless(first, NOISE), "a", read_bytes, monkeypatch) == ""
        assert read_bytes["stored"] <= PROBE_BYTES + START_BYTES

    @pytest.mark.parametrize("data", [bytes(2 * PROBE_BYTES), 32 * NOISE], ids=["zeros", "noise"])
    def test_the_header_decides_about_a_compressed_record_larger_than_the_probe(self, read_bytes, monkeypatch, data):
        file = io.BytesIO(gzip.compress(make_tfrecord([data]), 1))
        assert describe(file, "a.gz", read_bytes, monkeypatch) == ""
        assert max(read_bytes.values()) <= PROBE_BYTES + START_BYTES

    def test_the_header_does_not_decide_about_a_short_file(self, read_bytes, monkeypatch):
        file = io.BytesIO(HUGE_HEADER + NOISE)
        assert describe(file, "a", read_bytes, monkeypatch) == "is no TFRecord"

    @pytest.mark.parametrize("name", ["a", "a.gz"])
    def test_the_first_record_may_be_damaged(self, read_bytes, monkeypatch, name):
        content = bytearray(make_tfrecord([NOISE, b"good"]))
        content[100] ^= 1
        file = io.BytesIO(gzip.compress(content, 1) if name == "a.gz" else content)
        assert describe(file, name, read_bytes, monkeypatch) == ""


class TestReadErrors:
    """Another try of ranges must not read the records between them: they are done."""

    SIZE = len(make_tfrecord([make_example({"image/encoded": NOISE[:20_000]})]))
    CONTENT = make_tfrecord([make_example({"image/encoded": NOISE[:20_000]})] * 40)

    @pytest.mark.parametrize("name", ["a.gz", "a"])
    def test_ranges_of_a_compressed_file_fail_one_by_one(self, tmp_path, monkeypatch, name):
        data, size = gzip.compress(self.CONTENT, 0), self.SIZE
        (tmp_path / name).write_bytes(data)
        ranges = ((size, size + 1), (2 * size, 35 * size), (37 * size, 38 * size), (39 * size, NO_END))
        task = make_task(tmp_path / name, "tfrecord", ranges=ranges)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(data, 600_000))
        found = read_between(task)
        assert found[0].source == f"{tmp_path}/{name}@{size}"
        read = sum(isinstance(item, ImageRecord) for item in found)
        assert 1 < read < 30
        spans = [f"{(read + 1) * size}-{35 * size}", f"{37 * size}-{38 * size}", f"{39 * size}"]
        assert [item.source for item in found[read:]] == [f"{tmp_path}/{name}@{span}" for span in spans]

    def test_an_error_after_the_only_record_of_a_range_is_none(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_bytes(self.CONTENT)
        task = make_task(tmp_path / "a", "tfrecord", ranges=((0, 1),))
        monkeypatch.setattr("pipeline.tfrecords.byte_window.CHUNK_BYTES", 1000)
        monkeypatch.setattr(filesystem, "open_read", lambda path: breaking(self.CONTENT, self.SIZE + 900))
        (record,) = read_between(task)
        assert record.image == NOISE[:20_000]
