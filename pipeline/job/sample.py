"""A small sample of the records of a plan, some from each kind of task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.core.failures import Failure
from pipeline.core.records import Address, ImageRecord
from pipeline.dataset.plan import Plan
from pipeline.dataset.plan_files import to_tasks
from pipeline.inputs.base import UNKNOWN_BYTES, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.tasks import find_kind, read_part
from pipeline.job.estimate import TaskSample

SAMPLE_TASKS = 4
"""A sample reads at least this many tasks of a group, if there are as many, and less than twice as many."""


@dataclass(frozen=True)
class TaskGroup:
    """Similar tasks of a plan: of one kind, compressed or not, whole or in ranges.

    Attributes:
      has_records: whether the tasks are files of records; their sizes are in bytes. Otherwise a file is one record, and
        sizes are in files.
      is_compressed: whether the files are compressed.
      files: number of files that are read completely.
      size_bytes: number of bytes to read.
      total: size of all tasks.
      tasks: a few tasks, at even distances in the plan.
    """

    has_records: bool
    is_compressed: bool
    files: int
    size_bytes: int
    total: int
    tasks: tuple[ReadTask, ...]


@dataclass(frozen=True)
class PlannedWork:
    """The parts of a plan that a preview needs.

    Attributes:
      waves: number of waves.
      skipped: number of records that earlier runs have done.
      groups: all tasks, in groups.
    """

    waves: int
    skipped: int
    groups: tuple[TaskGroup, ...]


def summarize_plan(plan: Plan) -> PlannedWork:
    """Returns the work of a plan; iterates over its tasks once and keeps a few of them."""
    waves = 0
    groups: dict[tuple[str, bool, bool], _Tally] = {}
    for wave in plan.waves:
        waves += 1
        for task in itertools.chain.from_iterable(map(to_tasks, wave.files())):
            is_compressed = any(file.is_compressed for file in task.files)
            groups.setdefault((task.kind, is_compressed, task.ranges is None), _Tally()).add(task)
    return PlannedWork(
        waves,
        plan.skipped,
        tuple(
            TaskGroup(
                has_records=find_kind(kind).has_records,
                is_compressed=is_compressed,
                files=tally.files if is_whole else 0,
                size_bytes=tally.size_bytes,
                total=tally.total,
                tasks=tuple(tally.kept),
            )
            for (kind, is_compressed, is_whole), tally in groups.items()
        ),
    )


@dataclass
class _Tally:
    """The sums over the tasks of a group, of unknown number, and every `step`-th task."""

    files: int = 0
    size_bytes: int = 0
    total: int = 0
    kept: list[ReadTask] = field(default_factory=list)
    step: int = 1
    count: int = 0

    def add(self, task: ReadTask) -> None:
        self.files += len(task.files)
        if task.ranges is None:
            self.size_bytes += sum(file.size_bytes or UNKNOWN_BYTES for file in task.files)
        else:
            self.size_bytes += find_kind(task.kind).size_bytes(task)
        self.total += _task_size(task)
        if self.count % self.step == 0:
            self.kept.append(task)
            if len(self.kept) == 2 * SAMPLE_TASKS:
                self.kept = self.kept[::2]
                self.step *= 2
        self.count += 1


def _task_size(task: ReadTask) -> int:
    kind = find_kind(task.kind)
    return kind.size_bytes(task) if kind.has_records else len(task.files)


class SampleReader:
    """Yields the images of a sample of a group, once, and counts what it reads.

    The sampled records are the first ones of each task of the group, about as many of each task.

    Attributes:
      failures: the records that could not be read.
    """

    def __init__(self, group: TaskGroup, settings: ReadSettings, records: int) -> None:
        """Prepares to read up to `records` records."""
        self.failures: list[Failure] = []
        self._group = group
        self._settings = settings
        self._records = records
        self._heads: list[_Head] = []

    def __iter__(self) -> Iterator[ImageRecord]:
        left = self._records
        for index, task in enumerate(self._group.tasks):
            limit = share(left, index, len(self._group.tasks))
            if not limit:
                break
            head = _Head(task)
            self._heads.append(head)
            for item in _read_start(task, limit, self._settings):
                if head.records == limit:  # the next record begins where the sampled records end
                    head.stop = _offset(item)
                    break
                head.records += 1
                if isinstance(item, Failure):
                    self.failures.append(item)
                else:
                    yield item
            left -= head.records

    def measure(self) -> tuple[TaskSample, ...]:
        """Returns the samples of the tasks that were read.

        Raises:
          OSError: a file cannot be read.
        """
        return tuple(head.measure() for head in self._heads)


def share(wanted: int, index: int, count: int) -> int:
    """Returns the part of the wanted number that item `index` of `count` takes, if the items after it take the rest."""
    return -(-wanted // (count - index))


@dataclass
class _Head:
    """The records that were read from the start of a task.

    Attributes:
      task: the task.
      records: their number.
      stop: offset of the next record, uncompressed; None if there is none.
    """

    task: ReadTask
    records: int = 0
    stop: int | None = None

    def measure(self) -> TaskSample:
        """Returns the sample with the stored size of its records."""
        task, stop, total = self.task, self.stop, _task_size(self.task)
        if not find_kind(task.kind).has_records:
            return TaskSample(self.records, self.records, total, self.records == total)
        if stop is None:
            return TaskSample(self.records, total, total, is_complete=True)
        return TaskSample(self.records, find_kind(task.kind).stored_bytes(task, stop), total, is_complete=False)


def _read_start(task: ReadTask, limit: int, settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
    """Yields at least the first `limit` records of a task; of image files, which may be remote, reads no more."""
    kind = find_kind(task.kind)
    positions = kind.positions(task)
    part = TaskPart(task, 0, positions if kind.has_records else min(limit, positions))
    return read_part(part, lambda _: True, settings)


def _offset(item: ImageRecord | Failure) -> int:
    address = Address.parse(item.source)
    assert address is not None, f"{item.source} is not path@offset, as in every file of records"
    return address.start
