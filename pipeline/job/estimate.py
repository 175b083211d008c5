"""Estimates of the records, the core time and the cost of a run, from a measured sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class TaskSample:
    """The sampled records at the start of one task.

    Sizes are in bytes for a file of records, and in files for image files, which hold one record each.

    Attributes:
      records: number of records that were read.
      read: size of these records as stored, with all their features.
      total: size of the task.
      is_complete: whether these are all records of the task.
    """

    records: int
    read: int
    total: int
    is_complete: bool

    @property
    def estimated_records(self) -> float:
        """Number of records in the task."""
        return self.records if self.is_complete else self.records * self.total / max(1, self.read)


@dataclass(frozen=True, slots=True)
class GroupSample:
    """The sample of a group of similar tasks, such as all image files.

    Attributes:
      tasks: the sampled tasks.
      total: size of all tasks of the group, in the unit of `TaskSample`.
      is_counted: whether each unit of size is one record, so that the number of records is exact.
      embedded: sampled records that were embedded.
      cpu_seconds: time of all cores to read and embed the sampled records.
    """

    tasks: tuple[TaskSample, ...]
    total: int
    is_counted: bool
    embedded: int
    cpu_seconds: float

    @property
    def records(self) -> int:
        """Number of records in the sample."""
        return sum(task.records for task in self.tasks)

    @property
    def is_exact(self) -> bool:
        """Whether the estimated number of records is exact."""
        sampled = sum(task.total for task in self.tasks)
        return self.is_counted or (sampled >= self.total and all(task.is_complete for task in self.tasks))

    @property
    def estimated_records(self) -> float:
        """Number of records in the group: those of the sampled tasks, scaled by the size of all tasks."""
        sampled = sum(task.total for task in self.tasks)
        return sum(task.estimated_records for task in self.tasks) * (self.total / sampled if sampled else 1)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The work of a run.

    A worker is one vCPU (one core). The start-up of workers and pipelines is not included.

    Attributes:
      records: number of records.
      is_exact: whether this number is exact.
      embedded: number of records that will have a vector.
      core_seconds: time of one core to read and embed the records.
    """

    records: int
    is_exact: bool
    embedded: int
    core_seconds: float

    @property
    def images_per_second(self) -> float:
        """Speed of one core; 0 if nothing was measured."""
        return self.records / self.core_seconds if self.core_seconds else 0.0

    @property
    def vcpu_hours(self) -> float:
        """Hours of one core."""
        return self.core_seconds / _SECONDS_PER_HOUR

    @property
    def vcpu_hours_per_million(self) -> float:
        """Hours of one core for a million such records; 0 if nothing was measured."""
        return 1e6 * self.vcpu_hours / self.records if self.records else 0.0

    def seconds(self, workers: int) -> float:
        """Returns the duration on some workers that share the work equally."""
        return self.core_seconds / workers


def estimate(groups: Sequence[GroupSample]) -> Estimate:
    """Returns the estimate for all groups of a run: each group's sample, scaled by its number of records."""
    records = embedded = core_seconds = 0.0
    for group in groups:
        records += group.estimated_records
        if group.records:
            scale = group.estimated_records / group.records
            embedded += scale * group.embedded
            core_seconds += scale * group.cpu_seconds
    return Estimate(round(records), all(group.is_exact for group in groups), round(embedded), core_seconds)
