"""TFRecord files of `tf.train.Example`: each record is one image."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import Feature, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import (
    NO_END,
    Claim,
    End,
    InputFile,
    ReadSettings,
    ReadTask,
    TaskPart,
    unreadable,
    unreadable_ranges,
)
from pipeline.inputs.compressed import START_BYTES, CompressibleFiles, content_of, is_compressed
from pipeline.inputs.sniff import is_image
from pipeline.storage import filesystem
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import decode_features, parse_example
from pipeline.tfrecords.framing import HEADER, looks_like_tfrecord
from pipeline.tfrecords.gzip_stream import ByteStream, GzipStream

TFRECORD_NAME = r"(?:\.tfrecords?(?:[-_.]\d+(?:-of-\d+)?)?|-\d{5}-of-\d{5}|\.tfrec)(?:\.gz)?$"
"""Matches `a.tfrecord`, `a.tfrecords.gz`, `a.tfrecord-00000-of-00010` and `train-00000-of-01024`."""

DEFAULT_IMAGE_FEATURE = "image/encoded"

_PROBED_RECORDS = 16
_PROBE_BYTES = 16 << 20
"""Bytes at the beginning of a file that are searched for a first record: stored bytes, and uncompressed bytes."""
_LARGEST_RECORD_BYTES = (1 << 32) - 1


class TFRecordFiles(CompressibleFiles):
    """TFRecord files, optionally compressed with gzip or zlib."""

    name = "tfrecord"
    file_names = TFRECORD_NAME

    def matches(self, start: bytes) -> bool:
        """See `InputKind`."""
        return looks_like_tfrecord(start)

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        if _begins_with_records(file):
            return ""
        return "is no TFRecord" if file.size_bytes else "is empty"

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """See `InputKind`."""
        wanted = settings.config.image_feature or DEFAULT_IMAGE_FEATURE
        found: dict[str, Feature] = {}
        with filesystem.open_read(file.path) as stream:
            for record in itertools.islice(_first_records(_Probe(stream)), _PROBED_RECORDS):
                features = decode_features(record.data)
                if wanted in features:
                    return ""
                found.update(features)
        if not found:
            return ""
        texts = [name for name, feature in found.items() if feature.kind == "bytes"]
        images = [name for name in texts if any(map(is_image, found[name].values))]
        choice = next(iter((*images, *texts)), "NAME")
        return f"has {', '.join(sorted(found))}, but no {wanted}; say --image_feature={choice}"

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        task, start, stop = part.task, part.start, part.stop
        (file,) = task.files
        # A record holds other features besides the image; --max_image_bytes does not limit them.
        limit = min(settings.max_image_bytes + tfrecord.MAX_RECORD_BYTES, _LARGEST_RECORD_BYTES)
        if file.is_compressed:
            items = _sequential_items(file, task.ranges, limit) if claim(0) else iter(())
        elif task.ranges is not None:
            items = _chosen_items(task, start, stop, claim, limit)
        else:
            items = _claimed_items(file, start, stop, claim, end or (lambda: stop), limit)
        for item in items:
            yield item if isinstance(item, Failure) else _to_record(file, item, settings.config)


def record_bytes(path: str, offset: int) -> bytes | None:
    """Returns the data of the record at an offset of a file; None if there is none.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(path) as file:
        content = content_of(file, looks_like_tfrecord)
        if content.is_compressed:
            items = tfrecord.read_records_sequential(content.stream)
            found = next((item for item in items if _offset(item) >= offset), None)
        else:
            found = next(tfrecord.read_records(file, offset, offset + 1, at_boundary=True), None)
    return found.data if isinstance(found, tfrecord.Record) and found.offset == offset else None


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


class _Probe:
    """The beginning of a file, stored and uncompressed.

    Attributes:
      stored: the stored bytes.
      content: the uncompressed bytes; the same object if the file is not compressed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        start = stream.read(START_BYTES)
        stream.seek(0)
        self.stored = _Head(stream, _PROBE_BYTES)
        is_plain = not is_compressed(start, looks_like_tfrecord)
        self.content = self.stored if is_plain else _Head(GzipStream(self.stored), _PROBE_BYTES)


def _first_records(probe: _Probe) -> Iterator[tfrecord.Record]:
    items = tfrecord.read_records_sequential(probe.content)
    return (item for item in items if isinstance(item, tfrecord.Record))


def _begins_with_records(file: InputFile) -> bool:
    """Returns whether a record can be found near the beginning, possibly after a damaged one.

    If the probe ends before the file and holds no good record, the header at the start decides.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(file.path) as stream:
        probe = _Probe(stream)
        if next(_first_records(probe), None) is not None:
            return True
        return (probe.stored.is_used_up or probe.content.is_used_up) and looks_like_tfrecord(probe.content.start)


def _claimed_items(
    file: InputFile, start: int, stop: int, claim: Claim, end: End, limit: int
) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a byte range; claims each record by its offset."""
    position = start
    claimed = False
    try:
        with filesystem.open_read(file.path) as stream:
            if start == 0 and content_of(stream, looks_like_tfrecord).is_compressed:
                if claim(0):
                    yield from _sequential_items(file, None, limit)
                return
            for item in tfrecord.read_records(stream, start, stop, max_record_bytes=limit):
                # Other items belong to the record before them; only at the file's start there is none.
                if (isinstance(item, tfrecord.Record) or not claimed) and not claim(_offset(item)):
                    return
                claimed = True
                position = item.stop
                yield item
    except OSError as error:
        if (claimed or claim(start)) and position < (stop := end()):
            yield unreadable(file, error, position, stop, aligned=claimed or position == 0)


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
                if content_of(stream, looks_like_tfrecord).is_compressed:
                    yield from _sequential_items(task.files[0], (task.ranges[index],), limit)
                    continue
                for item in tfrecord.read_records(
                    stream, position, last, max_record_bytes=limit, at_boundary=task.aligned
                ):
                    if _offset(item) >= last:  # damage after the range's last record
                        break
                    position, aligned = item.stop, True
                    yield item
        except OSError as error:
            yield from unreadable_ranges(task.files[0], error, (task.ranges[index],), position, aligned=aligned)


def _sequential_items(
    file: InputFile, chosen: Sequence[tuple[int, int]] | None, limit: int
) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a whole file in file order, or only the items in some ranges."""
    position = 0
    chosen = chosen or ((0, NO_END),)
    ranges = deque(chosen)  # sorted, like the items
    try:
        with filesystem.open_read(file.path) as stream:
            content = content_of(stream, looks_like_tfrecord, is_named_so=file.is_compressed).stream
            for item in tfrecord.read_records_sequential(content, max_record_bytes=limit):
                position = item.stop
                while ranges and ranges[0][1] <= _offset(item):
                    ranges.popleft()
                if ranges and ranges[0][0] <= _offset(item):
                    yield item
    except OSError as error:
        yield from unreadable_ranges(file, error, chosen, position)


def _offset(item: tfrecord.Item) -> int:
    return item.start if isinstance(item, tfrecord.CorruptRange) else item.offset


def _to_record(file: InputFile, item: tfrecord.Item, config: InputConfig) -> ImageRecord | Failure:
    address = f"{file.name}@{_offset(item)}"
    if isinstance(item, tfrecord.Record):
        return parse_example(
            item.data,
            address=address,
            source=f"{file.path}@{item.offset}",
            image_feature=config.image_feature or DEFAULT_IMAGE_FEATURE,
            key_feature=config.key_feature,
            passthrough=config.passthrough,
        )
    source = f"{file.path}@{_offset(item)}-{item.stop}"
    if isinstance(item, tfrecord.CorruptRange):
        text = f"no readable record in {item.stop - item.start} bytes: {item.message}"
        return Failure(key_to_bytes(address), source, "read", "corrupt_record", text)
    text = f"the record has {item.length} bytes of data, more than --max_image_bytes leaves room for"
    return Failure(key_to_bytes(address), source, "read", "too_large", text)
