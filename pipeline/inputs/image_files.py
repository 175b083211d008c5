"""Image files: each file is one image."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ImageRecord
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.base import Claim, End, InputFile, InputKind, ReadSettings, ReadTask, TaskPart, unreadable
from pipeline.storage import filesystem

IMAGES_PER_TASK = 64
"""Image files of one task."""
REMOTE_READERS = 16
"""Parallel requests of each worker thread to an object store: a single request is slow."""


class ImageFiles(InputKind):
    """Image files of any format; the key of an image is its file's name."""

    name = "images"

    def recognizes(self, name: str) -> bool:
        """See `InputKind`."""
        return name.endswith(EXTENSIONS)

    def tasks(self, files: Sequence[InputFile]) -> Iterator[ReadTask]:
        """See `InputKind`."""
        for start in range(0, len(files), IMAGES_PER_TASK):
            yield ReadTask(self.name, tuple(files[start : start + IMAGES_PER_TASK]))

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`. Remote files are fetched several at a time."""
        files = part.task.files[part.start : part.stop]
        if not any(filesystem.is_remote(file.path) for file in files):
            yield from super().read(part, claim, settings, end)
            return
        with ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="read") as pool:
            waiting = iter(files)
            under_way: deque[Future[ImageRecord | Failure]] = deque()
            for index in range(part.start, part.stop):
                for file in itertools.islice(waiting, REMOTE_READERS - len(under_way)):
                    under_way.append(pool.submit(_read_image, file, settings.max_image_bytes))
                if not claim(index):
                    return
                yield under_way.popleft().result()

    def read_file(self, file: InputFile, settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        yield _read_image(file, settings.max_image_bytes)


def _read_image(file: InputFile, max_image_bytes: int) -> ImageRecord | Failure:
    try:
        with filesystem.open_read(file.path) as stream:
            # At most the expected size: Python allocates the whole requested size.
            data = stream.read(min(file.size_bytes, max_image_bytes) + 1)
            if len(data) > file.size_bytes:  # the file has grown, or its size was unknown
                data += stream.read(max_image_bytes + 1 - len(data))
    except OSError as error:
        return unreadable(file, error)
    if len(data) > max_image_bytes:
        text = f"the file has more than the {max_image_bytes} bytes that --max_image_bytes allows"
        return Failure(key_to_bytes(file.name), file.path, "read", "too_large", text)
    return ImageRecord(key_to_bytes(file.name), file.path, data)
