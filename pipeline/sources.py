"""What a read task holds: image files and ranges of TFRecord files turned into records and failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline import storage, tfrecord
from pipeline.examples import parse_example
from pipeline.gzip_stream import GzipStream
from pipeline.plan import ImageFiles, InputFile, ReadTask, RecordRange
from pipeline.records import Failure, ImageRecord
from pipeline.settings import InputConfig

REMOTE_READERS = 16
"""Files of an object store that are fetched at once by each worker thread: they are slow, but not one by one."""


def read_task(task: ReadTask, config: InputConfig, *, max_image_bytes: int) -> Iterator[ImageRecord | Failure]:
    """Yields each record of a task, or why it could not be read.

    Args:
      task: what to read.
      config: names of the features to read.
      max_image_bytes: an image file larger than this is not read into memory.
    """
    if isinstance(task, RecordRange):
        return _read_range(task, config, max_image_bytes)
    return _read_images(task, max_image_bytes)


def _read_range(task: RecordRange, config: InputConfig, max_image_bytes: int) -> Iterator[ImageRecord | Failure]:
    # Besides the image, a record holds its other features, which the image's limit does not speak of.
    limit = max_image_bytes + tfrecord.MAX_RECORD_BYTES
    file = task.file
    try:
        with storage.open_read(file.path) as stream:
            if file.is_compressed:
                items = tfrecord.read_records_sequential(GzipStream(stream), max_record_bytes=limit)
            else:
                items = tfrecord.read_records(stream, task.start, task.stop, max_record_bytes=limit)
            for item in items:
                yield _to_record(file, item, config)
    except OSError as error:
        yield _unreadable(file, error)


def _to_record(file: InputFile, item: tfrecord.Item, config: InputConfig) -> ImageRecord | Failure:
    if isinstance(item, tfrecord.Record):
        return parse_example(
            item.data,
            address=f"{file.name}@{item.offset}",
            source=f"{file.path}@{item.offset}",
            image_feature=config.image_feature,
            key_feature=config.key_feature,
            passthrough=config.passthrough,
        )
    if isinstance(item, tfrecord.CorruptRange):
        key, source = f"{file.name}@{item.start}", f"{file.path}@{item.start}-{item.stop}"
        text = f"no record can be made out in {item.stop - item.start} bytes: {item.message}"
        return Failure(_to_bytes(key), source, "read", "corrupt_record", text)
    key, source = f"{file.name}@{item.offset}", f"{file.path}@{item.offset}"
    return Failure(_to_bytes(key), source, "read", "too_large", f"the record has {item.length} bytes of data")


def _read_images(task: ImageFiles, max_image_bytes: int) -> Iterator[ImageRecord | Failure]:
    if not any(storage.is_remote(file.path) for file in task.files):
        for file in task.files:
            yield _read_image(file, max_image_bytes)
        return
    with ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="read") as pool:
        under_way: deque[Future[ImageRecord | Failure]] = deque()
        for file in task.files:
            under_way.append(pool.submit(_read_image, file, max_image_bytes))
            if len(under_way) == REMOTE_READERS:
                yield under_way.popleft().result()
        for future in under_way:
            yield future.result()


def _read_image(file: InputFile, max_image_bytes: int) -> ImageRecord | Failure:
    try:
        with storage.open_read(file.path) as stream:
            data = stream.read(max_image_bytes + 1)
    except OSError as error:
        return _unreadable(file, error)
    if len(data) > max_image_bytes:
        text = f"the file has more than the {max_image_bytes} bytes that --max_image_bytes allows"
        return Failure(_to_bytes(file.name), file.path, "read", "too_large", text)
    return ImageRecord(_to_bytes(file.name), file.path, data)


def _unreadable(file: InputFile, error: OSError) -> Failure:
    text = f"{error.strerror}" if error.strerror else " ".join(str(error).split())
    return Failure(_to_bytes(file.name), file.path, "read", "read_error", text)


def _to_bytes(name: str) -> bytes:
    """Returns a name as the bytes it has on disk, be they UTF-8 or not."""
    return name.encode("utf-8", "surrogateescape")
