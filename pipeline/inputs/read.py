"""What a read task holds: image files and ranges of TFRecord files turned into records and failures.

A task is read from one *position* to another, so that a runner can cut it into parts: bytes of an
uncompressed TFRecord file, else the files or ranges that the task names, else the one whole file.
Each position is claimed before it is read, and reading ends where a claim is refused: the rest of the
task then belongs to another worker.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.core.records import Failure, ImageRecord, key_to_bytes
from pipeline.core.settings import InputConfig
from pipeline.inputs.find import UNKNOWN_BYTES, ImageFiles, InputFile, ReadTask, RecordFile
from pipeline.storage import filesystem
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.examples import parse_example
from pipeline.tfrecords.gzip_stream import GzipStream

REMOTE_READERS = 16
"""Files of an object store that are fetched at once by each worker thread: they are slow, but not one by one."""
_LARGEST_RECORD_BYTES = (1 << 32) - 1

Claim = Callable[[int], bool]
"""Called with each position, in rising order, before it is read; False ends the reading."""
End = Callable[[], int]
"""Called where reading ends early; returns one past the part's last position, which does not change any more then."""


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A part of a task: what one worker gets to begin with.

    Attributes:
      task: what it is a part of.
      start: its first position.
      stop: one past its last.
    """

    task: ReadTask
    start: int
    stop: int

    def bytes_between(self, start: int, stop: int) -> int:
        """Returns about how many bytes there are to read between two positions."""
        return task_bytes(self.task) * (stop - start) // task_positions(self.task)


def task_positions(task: ReadTask) -> int:
    """Returns the number of positions that a task has; they begin with 0."""
    if isinstance(task, ImageFiles):
        return len(task.files)
    if task.file.is_compressed:
        return 1
    # A file that seems to be empty has one position, so that one that cannot be read is noticed.
    return len(task.ranges) if task.ranges is not None else max(task.file.size_bytes, 1)


def task_bytes(task: ReadTask) -> int:
    """Returns the number of bytes that a task has to read."""
    if isinstance(task, ImageFiles):
        return sum(file.size_bytes or UNKNOWN_BYTES for file in task.files)
    if task.ranges is not None and not task.file.is_compressed:
        return sum(stop - start for start, stop in task.ranges)
    return task.file.size_bytes


def cut_task(task: ReadTask, part_bytes: int) -> Iterator[TaskPart]:
    """Yields equal parts that make up a task, each of `part_bytes` or somewhat more, or all of a smaller task."""
    positions = task_positions(task)
    count = min(max(1, task_bytes(task) // part_bytes), positions)
    for index in range(count):
        yield TaskPart(task, positions * index // count, positions * (index + 1) // count)


def read_task(
    task: ReadTask,
    start: int,
    stop: int,
    claim: Claim,
    *,
    config: InputConfig,
    max_image_bytes: int,
    end: End | None = None,
) -> Iterator[ImageRecord | Failure]:
    """Yields each record of a part of a task, or why it could not be read.

    Args:
      task: what to read.
      start: the part's first position.
      stop: one past its last.
      claim: asks whether a position may be read.
      config: names of the features to read.
      max_image_bytes: an image file larger than this is not read into memory.
      end: tells where the part ends by now, if its end may come nearer while it is read.
    """
    if isinstance(task, ImageFiles):
        yield from _read_images(task.files[start:stop], start, claim, max_image_bytes)
        return
    file = task.file
    # Besides the image, a record holds its other features, which the image's limit does not speak of.
    limit = min(max_image_bytes + tfrecord.MAX_RECORD_BYTES, _LARGEST_RECORD_BYTES)
    if file.is_compressed:
        items = _compressed_items(task, limit) if claim(0) else iter(())
    elif task.ranges is not None:
        items = _chosen_items(task, start, stop, claim, limit)
    else:
        items = _claimed_items(file, start, stop, claim, end or (lambda: stop), limit)
    for item in items:
        yield item if isinstance(item, Failure) else _to_record(file, item, config)


def _claimed_items(
    file: InputFile, start: int, stop: int, claim: Claim, end: End, limit: int
) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a byte range, each record claimed by its offset."""
    position = start
    claimed = False
    try:
        with filesystem.open_read(file.path) as stream:
            for item in tfrecord.read_records(stream, start, stop, max_record_bytes=limit):
                # What is not a record belongs to the record before it; only at the file's start there is none.
                if (isinstance(item, tfrecord.Record) or not claimed) and not claim(_offset(item)):
                    return
                claimed = True
                position = item.stop
                yield item
    except OSError as error:
        if (claimed or claim(start)) and position < (stop := end()):
            yield _unreadable(file, error, position, stop, aligned=claimed)


def _chosen_items(
    task: RecordFile, start: int, stop: int, claim: Claim, limit: int
) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of the byte ranges that a task names."""
    assert task.ranges is not None
    for index in range(start, stop):
        if not claim(index):
            return
        position, last = task.ranges[index]
        aligned = task.aligned
        try:
            with filesystem.open_read(task.file.path) as stream:
                for item in tfrecord.read_records(
                    stream, position, last, max_record_bytes=limit, at_boundary=task.aligned
                ):
                    if _offset(item) >= last:  # what is damaged behind the range's last record
                        break
                    position, aligned = item.stop, True
                    yield item
        except OSError as error:
            yield _unreadable(task.file, error, position, last, aligned=aligned)


def _compressed_items(task: RecordFile, limit: int) -> Iterator[tfrecord.Item | Failure]:
    """Yields the items of a compressed file, from front to back, or those in the ranges that a task names."""
    position = 0
    ranges = deque(task.ranges or ((0, sys.maxsize),))  # in order, as the items come
    try:
        with filesystem.open_read(task.file.path) as stream:
            for item in tfrecord.read_records_sequential(GzipStream(stream), max_record_bytes=limit):
                position = item.stop
                while ranges and ranges[0][1] <= _offset(item):
                    ranges.popleft()
                if ranges and ranges[0][0] <= _offset(item):
                    yield item
    except OSError as error:
        if task.ranges is None or any(last > position for _, last in task.ranges):
            yield _unreadable(task.file, error, position, None)


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
        text = f"no record can be made out in {item.stop - item.start} bytes: {item.message}"
        return Failure(key_to_bytes(address), source, "read", "corrupt_record", text)
    text = f"the record has {item.length} bytes of data, more than --max_image_bytes leaves room for"
    return Failure(key_to_bytes(address), source, "read", "too_large", text)


def _read_images(
    files: tuple[InputFile, ...], first: int, claim: Claim, max_image_bytes: int
) -> Iterator[ImageRecord | Failure]:
    if not any(filesystem.is_remote(file.path) for file in files):
        for index, file in enumerate(files, first):
            if not claim(index):
                return
            yield _read_image(file, max_image_bytes)
        return
    with ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="read") as pool:
        waiting = iter(files)
        under_way: deque[Future[ImageRecord | Failure]] = deque()
        for index in range(first, first + len(files)):
            for file in itertools.islice(waiting, REMOTE_READERS - len(under_way)):
                under_way.append(pool.submit(_read_image, file, max_image_bytes))
            if not claim(index):
                return
            yield under_way.popleft().result()


def _read_image(file: InputFile, max_image_bytes: int) -> ImageRecord | Failure:
    try:
        with filesystem.open_read(file.path) as stream:
            # Not more than the file should have: Python makes room for all that is asked for.
            data = stream.read(min(file.size_bytes, max_image_bytes) + 1)
            if len(data) > file.size_bytes:  # it has grown, or its size was not known
                data += stream.read(max_image_bytes + 1 - len(data))
    except OSError as error:
        return _unreadable(file, error, 0, None)
    if len(data) > max_image_bytes:
        text = f"the file has more than the {max_image_bytes} bytes that --max_image_bytes allows"
        return Failure(key_to_bytes(file.name), file.path, "read", "too_large", text)
    return ImageRecord(key_to_bytes(file.name), file.path, data)


def _unreadable(file: InputFile, error: OSError, start: int, stop: int | None, *, aligned: bool = True) -> Failure:
    """Returns the failure of a file of which some bytes cannot be read.

    Its source is the file where none of it was, else `path@start-stop`, or `path@start` for all the rest
    of a compressed file. Its key names the record at `start`, or the range if no record is known to begin there.
    """
    text = error.strerror or " ".join(str(error).split())
    name, source = file.name, file.path
    if stop is None and start:
        name, source = f"{name}@{start}", f"{source}@{start}"
    elif stop is not None and (start or stop < file.size_bytes):
        name, source = (
            f"{name}@{start}" if aligned or not start else f"{name}@{start}-{stop}",
            f"{source}@{start}-{stop}",
        )
    return Failure(key_to_bytes(name), source, "read", "read_error", text)
