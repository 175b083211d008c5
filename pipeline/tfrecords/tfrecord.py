"""Reading any part of an intact or damaged TFRecord file.

`pipeline.tfrecords.framing` describes the format. A record is *good* if both its checksums match, it ends within the
file and its data is not longer than the limit. The format has no sync markers: a reader that starts in the middle of a
file, or after damage, takes the first offset at which a record is good.

Guarantees, for any division of a file into ranges:

* Every undamaged record is read exactly once, by the range in which its header begins.
* Every damaged stretch is reported exactly once, whole, and belongs to the good record before it: the range that
  reads this record reports the damage after it, up to the end of the damage. Damage at the start of the file belongs
  to the range that starts at 0.

Limits: the data of a record may itself contain framed records. The reader follows the chain of records from
`look_back_bytes` before its range, and so recognizes contained records in every undamaged record up to that length.
Contained records count as records of the file in two cases: a range starts inside a longer record, or the framing of
the outer record is damaged. If a record with an intact header lacks bytes, and exactly the length of the following
records is missing, those records are lost too.

Memory is bounded by a few records of the largest size, independent of the lengths in headers. The time to resync is
bounded by the number of damaged bytes: one scan, and a check of bounded cost for every intact header among them (see
`ByteWindow.crc32c`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.storage.checksum import MASK_DELTA, crc32c, masked_crc32c, unmasked
from pipeline.tfrecords.byte_window import DIRECT_CRC_BYTES, ByteWindow
from pipeline.tfrecords.framing import (
    FOOTER,
    FRAME_BYTES,
    HEADER,
    header_positions,
    length_at,
    looks_like_tfrecord,
)
from pipeline.tfrecords.gzip_stream import ByteStream

__all__ = [
    "LOOK_BACK_BYTES",
    "MAX_RECORD_BYTES",
    "CorruptRange",
    "Item",
    "OversizedRecord",
    "Record",
    "read_records",
    "read_records_sequential",
]

MAX_RECORD_BYTES = 256 << 20
LOOK_BACK_BYTES = 4 << 20

_LARGE_BYTES = 32 << 10
_FIRST_SCAN_BYTES, _LARGEST_SCAN_BYTES = 4 << 10, 256 << 10


@dataclass(frozen=True, slots=True)
class Record:
    """One good record.

    Attributes:
      offset: offset of its header in the uncompressed file.
      data: its content.
    """

    offset: int
    data: bytes

    @property
    def stop(self) -> int:
        """End offset (exclusive)."""
        return self.offset + FRAME_BYTES + len(self.data)


@dataclass(frozen=True, slots=True)
class CorruptRange:
    """Bytes without a readable record.

    Attributes:
      start: offset of the first damaged byte, where a record should begin.
      stop: end offset (exclusive): the next good record, or the end of the readable bytes. Equal to `start` if a
        compressed file breaks off between two records.
      message: the problem at `start`, one line.
    """

    start: int
    stop: int
    message: str


@dataclass(frozen=True, slots=True)
class OversizedRecord:
    """A record that seems to be intact but is longer than the limit; its data was not read.

    Attributes:
      offset: offset of its header in the uncompressed file.
      length: size of its data in bytes.
    """

    offset: int
    length: int

    @property
    def stop(self) -> int:
        """End offset (exclusive)."""
        return self.offset + FRAME_BYTES + self.length


Item = Record | CorruptRange | OversizedRecord


def read_records(
    file: BinaryIO,
    start: int = 0,
    stop: int | None = None,
    *,
    max_record_bytes: int = MAX_RECORD_BYTES,
    look_back_bytes: int = LOOK_BACK_BYTES,
    at_boundary: bool = False,
) -> Iterator[Item]:
    """Yields the items of a range of an uncompressed file, in file order.

    If the range may shrink while it is read (Beam's dynamic splitting), the caller claims each `Record` by its offset
    before use, and stops at the first refused claim. The claim of a record covers the other items after it, even if
    they begin after the range. If such an item comes before any record (the first bytes of the file are damaged), the
    caller claims 0 for it.

    Args:
      file: seekable (`read`, `seek`, `tell`). Undamaged files are read forward without further seeks.
      start: start offset of the range.
      stop: end offset of the range (exclusive); None for the end of the file.
      max_record_bytes: limit on a record's data, less than 4 GiB.
      look_back_bytes: distance before `start` from which to follow the records; this distinguishes records of the file
        from framed records inside another record's data, always with `max_record_bytes + 16`.
      at_boundary: whether a record of the file is known to begin at `start`; damage there then belongs to the range.

    Yields:
      The good records whose header begins in [start, stop), and the other items that belong to them.

    Raises:
      OSError: the file cannot be read.
      PipelineError: google-crc32c lacks its C extension.
    """
    if stop is not None and stop <= start:
        return
    reader = _Reader(ByteWindow(file, seekable=True), max_record_bytes)
    offset = start if at_boundary else reader.first_boundary(max(0, start - look_back_bytes), stop)
    if stop is not None and offset >= stop:
        return
    owned = at_boundary or start == 0
    for item in reader.items(offset):
        if isinstance(item, Record):
            if stop is not None and item.offset >= stop:
                return
            owned = item.offset >= start
        if owned:
            yield item


def read_records_sequential(stream: ByteStream, *, max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[Item]:
    """Yields the items of a stream of unknown length, from start to end.

    If decompression fails (`EOFError`, `zlib.error`, `gzip.BadGzipFile`), the last item is a `CorruptRange` up to the
    end of the decompressed bytes. An oversized record is searched for records like a damaged one, because the bytes
    after it are unknown until they are read.

    Args:
      stream: the uncompressed bytes; `GzipStream` for a gzip file.
      max_record_bytes: limit on a record's data, less than 4 GiB.

    Raises:
      OSError: the stream cannot be read.
      PipelineError: google-crc32c lacks its C extension.
    """
    return _Reader(ByteWindow(stream, seekable=False), max_record_bytes).items(0)


class _Reader:
    """Walks over the records of a file."""

    def __init__(self, window: ByteWindow, max_record_bytes: int) -> None:
        if not 0 < max_record_bytes < 1 << 32:
            raise ValueError(f"max_record_bytes is {max_record_bytes}, expected 1 to {(1 << 32) - 1}")
        self._window = window
        self._max_record_bytes = max_record_bytes
        # Longer data is read only after a check of bounded cost has shown that the record is good.
        self._direct_bytes = max_record_bytes

    def first_boundary(self, offset: int, stop: int | None) -> int:
        """Returns the first boundary in [offset, stop): 0, or the first good record.

        Without a boundary there: an offset at or after `stop`, or the end of the file.
        """
        return self._next_good(offset, stop) if offset else 0

    def items(self, offset: int) -> Iterator[Item]:
        """Yields all items from `offset` on; a record should begin there."""
        window = self._window
        unpack_header, unpack_footer = HEADER.unpack_from, FOOTER.unpack_from
        while window.fill(offset, 1):
            # The records that are completely in the window. Undamaged files spend nearly all their time in this loop.
            base, buffer = window.base, window.data
            position, last = offset - base, len(buffer) - FRAME_BYTES
            while position <= last:
                length, length_crc = unpack_header(buffer, position)
                if length > self._direct_bytes or position + length > last:
                    break
                crc = crc32c(buffer[position : position + 8])
                if (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF != length_crc:
                    break
                footer = position + 12 + length
                data = buffer[position + 12 : footer]
                crc = crc32c(data)
                if (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF != unpack_footer(buffer, footer)[0]:
                    break
                yield Record(base + position, data)
                position = footer + 4
            offset = base + position
            for record in self._large_records(offset):
                yield record
                offset = record.offset + FRAME_BYTES + len(record.data)
            if not window.fill(offset, 1):
                break
            stop = self._good_until(offset, keep=offset)
            if stop is not None:
                yield Record(offset, window.data[offset + 12 - window.base : stop - 4 - window.base])
                offset = stop
            else:
                damage = self._damage(offset)
                yield damage
                offset = damage.stop
                if window.error and not window.fill(offset, 1):
                    return  # the damage already reports the error
        if window.error:
            yield CorruptRange(offset, offset, window.error)

    def _large_records(self, offset: int) -> Iterator[Record]:
        """Yields the large good records from `offset` on that are not in the window yet.

        Each record is read separately, which copies its bytes as rarely as possible.
        """
        window = self._window
        if not window.fill(offset, HEADER.size):
            return
        length = self._large_length(offset, window.data[offset - window.base : offset - window.base + HEADER.size])
        if length is None or offset + HEADER.size + length < window.stop:
            return
        head = window.cut(offset)
        header, data = head[: HEADER.size], head[HEADER.size :]
        while length is not None:
            missing = window.read_on(length - len(data))
            data = data + missing if data else missing
            tail = window.read_on(FOOTER.size + HEADER.size)
            if len(tail) < FOOTER.size or masked_crc32c(data) != FOOTER.unpack_from(tail)[0]:
                header += data + tail
                break
            yield Record(offset, data)
            offset += FRAME_BYTES + length
            header, data = tail[FOOTER.size :], b""
            length = self._large_length(offset, header)
        window.hold(offset, header)

    def _large_length(self, offset: int, header: bytes) -> int | None:
        """Returns the length in the header at `offset` if the header is intact and its record large, else None."""
        length = length_at(header, 0) if len(header) == HEADER.size else None
        if length is None or not _LARGE_BYTES <= length <= self._direct_bytes:
            return None
        size = self._window.size
        return length if size is None or offset + FRAME_BYTES + length <= size else None

    def _damage(self, offset: int) -> CorruptRange | OversizedRecord:
        """Returns the damage at `offset`, where no record is good; its `stop` is the next readable offset."""
        self._direct_bytes = min(self._direct_bytes, DIRECT_CRC_BYTES)
        message, length = self._diagnose(offset)
        after = None if length is None else offset + FRAME_BYTES + length
        stop = after if after is not None and self._is_boundary(after, keep=offset) else None
        stop = self._next_good(offset + 1) if stop is None else stop
        failed = self._window.error and not self._window.fill(stop, 1)
        if length is not None and length > self._max_record_bytes and stop == after and not failed:
            return OversizedRecord(offset, length)
        return CorruptRange(offset, stop, f"{message}; {self._window.error}" if failed else message)

    def _diagnose(self, offset: int) -> tuple[str, int | None]:
        """Returns the problem at `offset`, and the length in the header there if the header's checksum matches."""
        window = self._window
        if not window.fill(offset, HEADER.size):
            return f"the file ends {window.stop - offset} bytes after the start of a record", None
        length = length_at(window.data, offset - window.base)
        if length is None:
            return "the checksum of the record's length does not match", None
        if window.end is not None and offset + FRAME_BYTES + length > window.end:
            left = window.end - offset
            return f"the record claims {length} bytes, but the file ends {left} bytes after its start", length
        if length > self._max_record_bytes:
            return f"the record claims {length} bytes, over the limit of {self._max_record_bytes}", length
        return f"the checksum of the record's {length} bytes does not match", length

    def _is_boundary(self, offset: int, keep: int) -> bool:
        """Returns whether the file ends or a record begins at `offset`; the window keeps its bytes from `keep` on."""
        window = self._window
        if offset == window.end:
            return True
        if offset - keep <= self._max_record_bytes + FRAME_BYTES:
            return self._good_until(offset, keep) is not None or offset == window.end
        if window.size is None or offset > window.size:
            return False
        return looks_like_tfrecord(window.peek(offset, HEADER.size))

    def _next_good(self, offset: int, stop: int | None = None) -> int:
        """Returns the first offset in [offset, stop) at which a record is good.

        Without a good record there: an offset at or after `stop`, or the end of the file.
        """
        window, block_bytes = self._window, _FIRST_SCAN_BYTES
        while stop is None or offset < stop:
            window.fill(offset, block_bytes)
            base, first = window.base, offset - window.base
            last = min(first + block_bytes, len(window.data)) - HEADER.size
            if last < first:
                return window.stop
            for position in header_positions(window.data, first, last, self._max_record_bytes):
                if self._good_until(base + position, keep=offset) is not None:
                    return base + position
            offset = base + last + 1
            block_bytes = min(2 * block_bytes, _LARGEST_SCAN_BYTES)
        return offset

    def _good_until(self, offset: int, keep: int) -> int | None:
        """Returns the end offset (exclusive) of the good record at `offset`, None if there is none.

        The window then holds this record and the bytes from `keep` on.
        """
        window = self._window
        if not window.fill(keep, offset - keep + HEADER.size):
            return None
        length = length_at(window.data, offset - window.base)
        if length is None or length > self._max_record_bytes:
            return None
        stop = offset + FRAME_BYTES + length
        if (window.size is not None and stop > window.size) or not window.fill(keep, stop - keep):
            return None
        (data_crc,) = FOOTER.unpack_from(window.data, stop - 4 - window.base)
        return stop if window.crc32c(offset + 12, stop - 4) == unmasked(data_crc) else None
