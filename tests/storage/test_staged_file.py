from pathlib import Path

from pipeline.storage.checksum import crc32c
from pipeline.storage.staged_file import StagedFile, WrittenFile
from tests.datasets import unlocked


def test_a_closed_file_tells_its_size_and_checksum(tmp_path):
    staged = StagedFile(unlocked(tmp_path), "00000", "embeddings")
    for data in (b"some ", memoryview(b"data")):
        staged.file.write(data)
    assert (staged.size_bytes, staged.file.tell()) == (9, 9)
    staged.rows = 3
    written = staged.close()
    assert written == WrittenFile(written.path, 9, crc32c(b"some data"), 3)
    assert Path(written.path).parent == Path(unlocked(tmp_path).staged("00000"))
    assert Path(written.path).read_bytes() == b"some data"


def test_names_are_unique(tmp_path):
    files = [StagedFile(unlocked(tmp_path), "00000", "embeddings").close() for _ in range(3)]
    assert len({file.path for file in files}) == 3


def test_later_writes_to_an_abandoned_file_are_dropped(tmp_path):
    staged = StagedFile(unlocked(tmp_path), "00000", "embeddings")
    staged.abandon()
    assert staged.file.write(b"end") == 3
    assert staged.size_bytes == 0
    staged.abandon()
