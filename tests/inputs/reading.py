"""Reading one file of records, as the tests do it."""

import errno
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.tasks import find_kind, read_part


def make_task(path: Path, kind: str, *, ranges: Sequence[tuple[int, int]] | None = None, name: str = "") -> ReadTask:
    """Returns the task that reads a file."""
    file = InputFile(str(path), name or path.name, kind, path.stat().st_size, 0.0)
    return ReadTask(kind, (file,), None if ranges is None else tuple(ranges))


def read_between(
    task: ReadTask, start: int = 0, stop: int | None = None, *, max_image_bytes: int = 1 << 20, **options: object
) -> list[ImageRecord | Failure]:
    """Reads a part of a task; checks that the positions that it claims ascend within the part."""
    stop = find_kind(task.kind).positions(task) if stop is None else stop
    claims = [start - 1]

    def claim(position: int) -> bool:
        assert claims[-1] < position < stop
        claims.append(position)
        return True

    settings = ReadSettings(InputConfig(("unused",), **options), max_image_bytes)
    return list(read_part(TaskPart(task, start, stop), claim, settings))


def read_until(task: ReadTask, refused: int, **options: object) -> list[ImageRecord | Failure]:
    """Reads a task whose positions from `refused` on another worker has."""
    part = TaskPart(task, 0, find_kind(task.kind).positions(task))
    settings = ReadSettings(InputConfig(("unused",), **options), 1 << 20)
    return list(read_part(part, lambda position: position < refused, settings))


def check_split(task: ReadTask, step: int, **options: object) -> list[ImageRecord | Failure]:
    """Checks that any two parts together have the records and failures of the whole task, and returns these."""
    whole = read_between(task, **options)
    positions = find_kind(task.kind).positions(task)
    for cut in range(0, positions + 1, step):
        rest = read_between(task, cut, **options)
        assert read_between(task, 0, cut, **options) + rest == whole, cut
        assert read_until(task, cut, **options) + rest == whole, cut
    return whole


def breaking(data: bytes, readable: int, *, tail: int = 0) -> io.BytesIO:
    """Returns a file of which only the first bytes can be read, and the last ones if `tail` is their number."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            stop = self.tell() + (size if size is not None and size >= 0 else len(data))
            if self.tell() < len(data) - tail and stop > readable:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

        read1 = read

    return Broken(data)
