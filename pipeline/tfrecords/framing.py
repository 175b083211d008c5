"""The framing of one record in a TFRecord file: writing it, and finding headers in arbitrary bytes.

| bytes | content |
| --- | --- |
| 8 | length of the data, unsigned, little-endian |
| 4 | masked CRC32C of those 8 bytes |
| length | data |
| 4 | masked CRC32C of the data |

(tensorflow/core/lib/io/record_writer.h). A file is a sequence of such records, without a file header.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.storage.checksum import MASK_DELTA, crc32c, masked_crc32c

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
FRAME_BYTES = HEADER.size + FOOTER.size

_LENGTH = struct.Struct("<Q")


def looks_like_tfrecord(first_bytes: bytes) -> bool:
    """Returns whether the first bytes of a file (12 suffice) begin with a record's header.

    For an empty file, which is a valid TFRecord without records, the result is False.
    """
    return len(first_bytes) >= HEADER.size and length_at(first_bytes, 0) is not None


def frame(data: bytes) -> bytes:
    """Returns `data` framed as one record."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, FOOTER.pack(masked_crc32c(length)), data, FOOTER.pack(masked_crc32c(data))))


def length_at(buffer: bytes, position: int) -> int | None:
    """Returns the length in the header at `position`, None if the header's checksum does not match."""
    length, length_crc = HEADER.unpack_from(buffer, position)
    return length if masked_crc32c(buffer[position : position + 8]) == length_crc else None


def header_positions(buffer: bytes, first: int, last: int, max_length: int) -> list[int]:
    """Returns the positions in [first, last] of headers with a matching checksum and a length up to `max_length`.

    `max_length` is less than 2**32: the upper four bytes of the length must be zero, which excludes most positions of
    most files. CRC32C is linear: the checksum of a length is the XOR of two table entries, selected by its two lower
    16-bit halves.
    """

    def values_at(offset: int, dtype: str) -> npt.NDArray[Any]:
        """Returns the unaligned little-endian integers at `offset` bytes after each position, without a copy."""
        array: npt.NDArray[Any] = np.ndarray((last + 1 - first,), dtype, buffer, first + offset, (1,))
        return array

    positions = np.flatnonzero(values_at(4, "<u4") == 0)
    if not positions.size:
        return []
    lengths, stored = values_at(0, "<u4")[positions], values_at(8, "<u4")[positions]
    # Twelve zero bytes are no header; files may hold megabytes of zeros.
    possible = ((lengths | stored) != 0) & (lengths <= max_length)
    positions, lengths, stored = positions[possible], lengths[possible], stored[possible]
    lower_table, upper_table = _length_crc_tables()
    crc = lower_table[lengths & 0xFFFF] ^ upper_table[lengths >> 16]
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(MASK_DELTA)
    return [first + int(position) for position in positions[masked == stored]]


@functools.cache
def _length_crc_tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Returns tables `lower`, `upper` with crc32c(length) == lower[length % 2**16] ^ upper[length >> 16]."""
    zero = crc32c(bytes(8))
    columns = [
        np.array([crc32c(_LENGTH.pack(value << shift)) ^ zero for value in range(256)], np.uint32)
        for shift in (0, 8, 16, 24)
    ]
    lower = (columns[1][:, None] ^ columns[0][None, :]).reshape(-1)
    upper = (columns[3][:, None] ^ columns[2][None, :]).reshape(-1)
    return lower ^ np.uint32(zero), upper
