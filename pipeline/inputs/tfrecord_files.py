"""TFRecord files of `tf.train.Example`: each record is one image."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import Claim, End, InputFile, InputKind, ReadSettings, ReadTask, TaskPart, unreadable
from pipeline.storage import filesystem
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.framing import HEADER, looks_like_tfrecord
from pipeline.tfrecords.gzip_stream import ByteStream, GzipStream

TFRECORD_NAME = r"(?:\.tfrecords?(?:[-_.]\d+(?:-of-\d+)?)?|-\d{5}-of-\d{5}|\.tfrec)(?:\.gz)?$"
"""Matches `a.tfrecord`, `a.tfrecords.gz`, `a.tfrecord-00000-of-00010` and `train-00000-of-01024`."""


_GZIP_MAGIC = b"\x1f\x8b"
_PROBE_BYTES = 16 << 20
"""Bytes at the beginning of a file that are searched for a first record: stored bytes, and uncompressed bytes."""
_LARGEST_RECORD_BYTES = (1 << 32) - 1


class TFRecordFiles(InputKind):
    """TFRecord files, optionally compressed with gzip.

    The positions of a task are the byte offsets of its uncompressed file, or the indices of its ranges, if any. A
    compressed file has one position.
    """

    name = "tfrecord"
    file_names = TFRECORD_NAME
    has_records = True

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        if _begins_with_records(file):
            return ""
        if file.size_bytes == 0:
            return "is empty"
        if not file.is_compressed and _first_bytes(file.path, 2) == _GZIP_MAGIC:
            return "is compressed, but its name does not end in .gz"
        return "is no TFRecord"

    def positions(self, task: ReadTask) -> int:
        """See `InputKind`."""
        (file,) = task.files
        if file.is_compressed:
            return 1
        # A file of size 0 has one position: reading it shows whether the file is unreadable.
        return len(task.ranges) if task.ranges is not None else max(file.size_bytes, 1)

    def size_bytes(self, task: ReadTask) -> int:
        """See `InputKind`."""
        (file,) = task.files
        if task.ranges is not None and not file.is_compressed:
            return sum(stop - start for start, stop in task.ranges)
        return file.size_bytes

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        task, start, stop = part.task, part.start, part.stop
        (file,) = task.files
        # A record holds other features besides the image; --max_image_bytes does not limit them.
        limit = min(settings.max_image_bytes + tfrecord.MAX_RECORD_BYTES, _LARGEST_RECORD_BYTES)
        if file.is_compressed:
            items = _compressed_items(task, limit) if claim(0) else iter(())
        elif task.ranges is not None:
            items = _chosen_items(task, start, stop, claim, limit)
        else:
            items = _claimed_items(file, start, stop, claim, end or (lambda: stop), limit)
        for item in items:
            yield item if isinstance(item, Failure) else _to_record(file, item, settings.config)


def _first_bytes(path: str, count: int) -> bytes:
    with filesystem.open_read(path) as stream:
        return stream.read(count)


class _Head:
    """The first bytes of a stream, as a stream.

    Attributes:
      start: the first bytes that were read, at most `HEADER.size`.
    """

    def __init__(self, stream: ByteStream, count: int) -> None:
        self._stream = stream
        self._left = count
        self.start = b""

    @property
    def is_used_up(self) -> bool:
        """Whether all `count` bytes were read; the stream may have more."""
        return self._left <= 0

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; empty at the end."""
        if self.is_used_up:
            return b""
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        self.start += data[: HEADER.size - len(self.start)]
        return data


def _begins_with_records(file: InputFile) -> bool:
    """Returns whether a record can be found near the beginning, possibly after a damaged one.

    If the probe ends before the file and holds no good record, the header at the start decides.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(file.path) as stream:
        stored = _Head(stream, _PROBE_BYTES)
        content = _Head(GzipStream(stored), _PROBE_BYTES) if file.is_compressed else stored
        items = tfrecord.read_records_sequential(content)
        if any(isinstance(item, tfrecord.Record) for item in items):
            return True
        return (stored.is_used_up or content.is_used_up) and looks_like_tfrecord(content.start)


def _claimed_items(
    file: InputFile, start: int, stop: int, claim: Claim, end: End, limit: int
) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a byte range; claims each record by its offset."""
    position = start
    claimed = False
    try:
        with filesystem.open_read(file.path) as stream:
            for item in tfrecord.read_records(stream, start, stop, max_record_bytes=limit):
                # Other items belong to the record before them; only at the file's start there is none.
                if (isinstance(item, tfrecord.Record) or not claimed) and not claim(_offset(item)):
                    return
                claimed = True
                position = item.stop
                yield item
    except OSError as error:
        if (claimed or claim(start)) and position < (stop := end()):
            yield unreadable(file, error, position, stop, aligned=claimed)


def _chosen_items(task: ReadTask, start: int, stop: int, claim: Claim, limit: int) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items in the byte ranges of a task."""
    assert task.ranges is not None
    for index in range(start, stop):
        if not claim(index):
            return
        position, last = task.ranges[index]
        aligned = task.aligned
        try:
            with filesystem.open_read(task.files[0].path) as stream:
                for item in tfrecord.read_records(
                    stream, position, last, max_record_bytes=limit, at_boundary=task.aligned
                ):
                    if _offset(item) >= last:  # damage after the range's last record
                        break
                    position, aligned = item.stop, True
                    yield item
        except OSError as error:
            yield unreadable(task.files[0], error, position, last, aligned=aligned)


def _compressed_items(task: ReadTask, limit: int) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a compressed file in file order, or only the items in the ranges of the task."""
    position = 0
    ranges = deque(task.ranges or ((0, sys.maxsize),))  # sorted, like the items
    try:
        with filesystem.open_read(task.files[0].path) as stream:
            for item in tfrecord.read_records_sequential(GzipStream(stream), max_record_bytes=limit):
                position = item.stop
                while ranges and ranges[0][1] <= _offset(item):
                    ranges.popleft()
                if ranges and ranges[0][0] <= _offset(item):
                    yield item
    except OSError as error:
        if task.ranges is None or any(last > position for _, last in task.ranges):
            yield unreadable(task.files[0], error, position, None)


def _offset(item: tfrecord.Item) -> int:
    return item.start if isinstance(item, tfrecord.CorruptRange) else item.offset


def _to_record(file: InputFile, item: tfrecord.Item, config: InputConfig) -> ImageRecord | Failure:
    address = f"{file.name}@{_offset(item)}"
    if isinstance(item, tfrecord.Record):
        return parse_example(
            item.data,
            address=address,
            source=f"{file.path}@{item.offset}",
            image_feature=config.image_feature,
            key_feature=config.key_feature,
            passthrough=config.passthrough,
        )
    source = f"{file.path}@{_offset(item)}-{item.stop}"
    if isinstance(item, tfrecord.CorruptRange):
        text = f"no readable record in {item.stop - item.start} bytes: {item.message}"
        return Failure(key_to_bytes(address), source, "read", "corrupt_record", text)
    text = f"the record has {item.length} bytes of data, more than --max_image_bytes leaves room for"
    return Failure(key_to_bytes(address), source, "read", "too_large", text)
