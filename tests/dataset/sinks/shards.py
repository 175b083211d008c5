"""Reading staged shards back, for the tests of sinks."""

from pipeline.dataset.metadata import OutputEntry
from pipeline.dataset.reader import read_shard
from pipeline.storage import filesystem

HOSTILE_KEYS = [b"line\nbreak\r\n", b"nul\0", b"../../etc/passwd", b"x" * 10_000, b"\xff\xfe\x80", "ünï".encode(), b""]


def rows_of(shard):
    entry = OutputEntry("embeddings/x", shard.kind, shard.format, shard.size_bytes, "", shard.rows)
    path = shard.path
    if shard.extension.endswith(".gz"):  # told by the name, which a staged file has not got yet
        path = shard.path + ".gz"
        filesystem.rename(shard.path, path)
    return [row for batch in read_shard(path, entry) for row in batch.to_pylist()]


def read_bytes(shard):
    with open(shard.path, "rb") as file:
        return file.read()
