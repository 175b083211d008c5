"""Image files: each file, or what a web address serves, is one image."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ImageRecord
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.base import (
    UNKNOWN_BYTES,
    Claim,
    End,
    InputFile,
    InputKind,
    ReadSettings,
    ReadTask,
    TaskPart,
    unreadable,
)
from pipeline.inputs.sniff import is_image
from pipeline.storage import filesystem
from pipeline.storage.fetcher import shared_fetcher
from pipeline.storage.web_addresses import is_web_address
from pipeline.storage.web_client import FetchFailure, FetchSettings

IMAGES_PER_TASK = 64
"""Image files of one task."""
ADDRESSES_PER_TASK = 4096
"""Web addresses of one task: at its end, a worker waits for the slowest one."""
REMOTE_READERS = 16
"""Parallel requests of each worker thread to an object store: a single request is slow."""
REMOTE_BYTES = 64 << 20
"""Planned size of the files that a worker thread requests at the same time; a larger file is requested alone."""


class ImageFiles(InputKind):
    """Image files of any format; the key of an image is its file's name."""

    name = "images"
    file_names = rf"(?:{'|'.join(map(re.escape, EXTENSIONS))})$"
    part_bytes = ADDRESSES_PER_TASK * UNKNOWN_BYTES

    def matches(self, start: bytes) -> bool:
        """See `InputKind`."""
        return is_image(start)

    def tasks(self, files: Sequence[InputFile]) -> Iterator[ReadTask]:
        """See `InputKind`."""
        on_web = [file for file in files if is_web_address(file.path)]
        others = [file for file in files if not is_web_address(file.path)] if on_web else files
        for chosen, count in ((on_web, ADDRESSES_PER_TASK), (others, IMAGES_PER_TASK)):
            for start in range(0, len(chosen), count):
                yield ReadTask(self.name, tuple(chosen[start : start + count]))

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`. Remote files are fetched several at a time, up to `REMOTE_READERS` and `REMOTE_BYTES`.

        The addresses of a task are either all on the web, or none.
        """
        files = part.task.files[part.start : part.stop]
        if files and is_web_address(files[0].path):
            yield from _fetch(files, part.start, claim, settings)
            return
        if not any(filesystem.is_remote(file.path) for file in files):
            yield from super().read(part, claim, settings, end)
            return
        with ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="read") as pool:
            waiting = deque(files)
            under_way: deque[Future[ImageRecord | Failure]] = deque()  # including images that wait for the consumer
            bytes_under_way = 0
            for index, file in enumerate(files, part.start):
                while waiting and len(under_way) < REMOTE_READERS:
                    size_bytes = _planned_bytes(waiting[0], settings)
                    if under_way and bytes_under_way + size_bytes > REMOTE_BYTES:
                        break
                    bytes_under_way += size_bytes
                    under_way.append(pool.submit(_read_image, waiting.popleft(), settings.max_image_bytes))
                if not claim(index):
                    return
                yield under_way.popleft().result()
                bytes_under_way -= _planned_bytes(file, settings)

    def read_file(self, file: InputFile, settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        yield _read_image(file, settings.max_image_bytes)


def fetch_all(addresses: Iterable[str], settings: ReadSettings) -> Iterator[bytes | FetchFailure]:
    """Yields what each web address serves, in order; takes the addresses some way ahead."""
    config = settings.config
    wanted = FetchSettings(
        config.fetch_concurrency, config.fetch_timeout, settings.max_image_bytes, config.allow_private_addresses
    )
    return shared_fetcher(wanted).fetch(addresses)


def _fetch(
    files: Sequence[InputFile], start: int, claim: Claim, settings: ReadSettings
) -> Iterator[ImageRecord | Failure]:
    claimed = (files[index - start].path for index in itertools.takewhile(claim, range(start, start + len(files))))
    for file, found in zip(files, fetch_all(claimed, settings), strict=False):
        key = key_to_bytes(file.name)
        if isinstance(found, FetchFailure):
            yield Failure(key, file.path, "read", found.reason, found.message)
        else:
            yield ImageRecord(key, file.path, found)


def _planned_bytes(file: InputFile, settings: ReadSettings) -> int:
    return min(file.size_bytes or UNKNOWN_BYTES, settings.max_image_bytes)


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
