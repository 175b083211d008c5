"""TFRecord files, whole and damaged, and short ways to read them."""

import io
import itertools

import google_crc32c
import numpy as np

from pipeline.tfrecords.framing import frame
from pipeline.tfrecords.gzip_stream import GzipStream
from pipeline.tfrecords.tfrecord import CorruptRange, Item, Record, read_records, read_records_sequential

THREE = [b"first record", b"the second", b"third"]
A, B, C = 0, 28, 54  # offsets of the three
END = 75


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def framed(payloads: list[bytes]) -> bytes:
    return b"".join(frame(payload) for payload in payloads)


def header(length: int) -> bytes:
    """An intact header that claims `length` bytes."""
    packed = length.to_bytes(8, "little")
    crc = google_crc32c.value(packed)
    return packed + ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def flip(data: bytes, position: int, count: int = 1) -> bytes:
    flipped = bytes(byte ^ 0xFF for byte in data[position : position + count])
    return data[:position] + flipped + data[position + count :]


def read(data: bytes, start: int = 0, stop: int | None = None, **limits: int) -> list[Item]:
    return list(read_records(io.BytesIO(data), start, stop, **limits))


def read_stream(data: bytes, **limits: int) -> list[Item]:
    return list(read_records_sequential(io.BytesIO(data), **limits))


def read_gzip(data: bytes) -> list[Item]:
    return list(read_records_sequential(GzipStream(io.BytesIO(data))))


def read_in_ranges(data: bytes, cuts: list[int], **limits: int) -> list[Item]:
    edges = [0, *sorted(cuts), len(data)]
    return [item for start, stop in itertools.pairwise(edges) for item in read(data, start, stop, **limits)]


def payloads_of(items: list[Item]) -> list[bytes]:
    return [item.data for item in items if isinstance(item, Record)]


def extent(item: Item) -> tuple[int, int]:
    if isinstance(item, Record):
        return item.offset, item.offset + 16 + len(item.data)
    return (item.start, item.stop) if isinstance(item, CorruptRange) else (item.offset, item.stop)
