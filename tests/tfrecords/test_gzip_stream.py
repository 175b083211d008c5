import gzip
import io
import zlib

import numpy as np
import pytest

from pipeline.tfrecords.gzip_stream import GzipStream

DATA = np.random.default_rng(0).bytes(300_000) + bytes(3_000_000)


def read_all(compressed: bytes, size: int = 100_000) -> bytes:
    stream = GzipStream(io.BytesIO(compressed))
    pieces = []
    while piece := stream.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    assert stream.read(size) == b""
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1000, 100_000, 10_000_000])
def test_whole_file(size: int) -> None:
    assert read_all(gzip.compress(DATA), size) == DATA


def test_members_and_padding() -> None:
    compressed = gzip.compress(b"one") + gzip.compress(b"") + bytes(600_000) + gzip.compress(DATA) + bytes(1000)
    assert read_all(compressed) == b"one" + DATA


def test_small_input_that_expands_a_lot_comes_in_pieces() -> None:
    assert len(GzipStream(io.BytesIO(gzip.compress(bytes(50_000_000)))).read(1000)) <= 1000


def read_until_error(compressed: bytes) -> tuple[bytes, Exception]:
    stream = GzipStream(io.BytesIO(compressed))
    read = b""
    try:
        while piece := stream.read(1 << 20):
            read += piece
    except (EOFError, zlib.error) as error:
        with pytest.raises(type(error)):  # and again: the stream does not go on behind its error
            stream.read(1)
        return read, error
    raise AssertionError("no error")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_keeps_all_before(part: float) -> None:
    compressed = gzip.compress(DATA)
    left = compressed[: int(part * len(compressed))]
    decompressor = zlib.decompressobj(31)
    expected = decompressor.decompress(left) + decompressor.flush()
    read, error = read_until_error(left)
    assert read == expected
    assert str(error) == "the gzip stream ends early"


def test_damaged_file_keeps_all_before() -> None:
    payload = bytes(i % 251 for i in range(200_000))
    compressed = bytearray(gzip.compress(payload, compresslevel=1))
    compressed[-8] ^= 1
    read, error = read_until_error(bytes(compressed))
    assert read == payload
    assert "incorrect data check" in str(error)


@pytest.mark.parametrize("compressed", [b"", bytes(1000), b"text"])
def test_not_a_gzip_file(compressed: bytes) -> None:
    assert read_until_error(compressed)[0] == b""
