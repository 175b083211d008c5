"""The tasks of input files, and the parts that workers read."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence

from pipeline.core.errors import InputError
from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.inputs.base import Claim, End, InputFile, InputKind, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.compressed import START_BYTES, decompressed_start
from pipeline.inputs.registry import INPUT_KINDS
from pipeline.storage import filesystem


@functools.cache
def _registered(name: str) -> InputKind:
    kind: InputKind = INPUT_KINDS.load(name)()
    return kind


def registered_kinds() -> tuple[InputKind, ...]:
    """Returns all registered input kinds, in the order of `--input_format=auto`."""
    return tuple(map(_registered, INPUT_KINDS.names))


def record_kinds() -> tuple[str, ...]:
    """Returns the names of the registered kinds whose files hold records."""
    return tuple(kind.name for kind in registered_kinds() if kind.has_records)


def find_kind(name: str, kinds: Sequence[InputKind] = ()) -> InputKind:
    """Returns the input kind of a name: one of `kinds`, or a registered one.

    Raises:
      UsageError: no kind has this name.
    """
    return next((kind for kind in kinds if kind.name == name), None) or _registered(name)


def find_kind_of(start: bytes, kinds: Sequence[InputKind]) -> InputKind | None:
    """Returns the kind that the first bytes of a file show, even if gzip has compressed the file; None if unknown."""
    for data in (start, decompressed_start(start)):
        for kind in kinds:
            if data and kind.matches(data):
                return kind
    return None


def first_bytes(path: str) -> bytes:
    """Returns the first bytes of a file.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(path) as stream:
        return stream.read(START_BYTES)


def make_tasks(files: Iterable[InputFile], kinds: Sequence[InputKind] = ()) -> list[ReadTask]:
    """Returns the tasks that read the files, grouped by kind."""
    by_kind: dict[str, list[InputFile]] = {}
    for file in files:
        by_kind.setdefault(file.kind, []).append(file)
    # Files of records come first: they are the larger tasks.
    found = sorted((find_kind(name, kinds) for name in by_kind), key=lambda kind: not kind.has_records)
    return [task for kind in found for task in kind.tasks(by_kind[kind.name])]


def cut_task(task: ReadTask, part_bytes: int, kinds: Sequence[InputKind] = ()) -> Iterator[TaskPart]:
    """Splits a task into equal parts of at least `part_bytes`; yields a smaller task as one part.

    The parts of a kind with larger `part_bytes` are as large.
    """
    kind = find_kind(task.kind, kinds)
    part_bytes = max(part_bytes, kind.part_bytes)
    positions, size_bytes = kind.positions(task), kind.size_bytes(task)
    count = min(max(1, size_bytes // part_bytes), positions)
    for index in range(count):
        start, stop = positions * index // count, positions * (index + 1) // count
        yield TaskPart(task, start, stop, size_bytes * (stop - start) // positions)


def check_visible(task: ReadTask) -> None:
    """Checks, on a worker elsewhere, that it sees the place of a task's files, which the launcher has seen.

    A missing file is a failure record. A worker that lacks a mount would make one of each file that it is given.

    Raises:
      InputError: none of the files is there, and their directory is missing or empty.
    """
    seen = [file.path for file in task.files if file.mtime_s and not filesystem.is_remote(file.path)]
    if seen and not any(map(os.path.exists, seen)) and _is_missing_or_empty(directory := os.path.dirname(seen[0])):
        raise InputError(
            f"a worker does not see the directory {directory}, in which the launcher found inputs; expected the same "
            "paths on all machines: mount the directory where the workers run, or use a store such as gs://"
        )


def _is_missing_or_empty(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def read_part(
    part: TaskPart, claim: Claim, settings: ReadSettings, *, end: End | None = None, kinds: Sequence[InputKind] = ()
) -> Iterator[ImageRecord | Failure]:
    """Yields each record of a part of a task, or a failure if it cannot be read; see `InputKind.read`."""
    return find_kind(part.task.kind, kinds).read(part, claim, settings, end)


def read_tasks(tasks: Iterable[ReadTask], settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
    """Yields each record of some tasks, or a failure if it cannot be read, sequentially and without Beam."""
    for task in tasks:
        part = TaskPart(task, 0, find_kind(task.kind).positions(task))
        yield from read_part(part, lambda _: True, settings)
