"""`ReadImages`: read tasks to records."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.transforms.core import RestrictionProvider

from pipeline.beam.worker_errors import carry_causes
from pipeline.core.errors import TooManyFailures
from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.core.settings import DecodeConfig, InputConfig
from pipeline.dataset.plan import read_plan
from pipeline.inputs.base import InputKind, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import cut_task, make_tasks, read_part

READ_COUNTER = "records-read"

PART_BYTES = 64 << 20
"""Bytes of a task that a worker gets as one part to begin with; the runner may cut further while a part is read."""


@dataclass
class ReadImages(beam.PTransform):
    """Reads image files and TFRecords.

    Gives a PCollection of `ImageRecord`, and of `Failure` for what could not be read, so that nothing
    is dropped on the way; `EmbedImages` passes failures on. Descriptions of parts of files are spread
    over the workers, and a splittable DoFn reads them: the runner can move what is left of a part from a
    slow worker to an idle one. The bytes of an image never cross a shuffle.

    Attributes:
      tasks: what to read, as `pipeline.inputs.tasks.make_tasks` returns it.
      config: names of the features to read; only needed for TFRecords.
      max_image_bytes: an image file larger than this is a failure.
      plan_files: files with more tasks, as `pipeline.dataset.plan.write_plan` writes them.
      spread: whether the parts are dealt out before they are read. Some runners, Flink's among them, would leave all
        that one worker has listed to that worker; on a single machine it is not needed, and costs some 20 ms.
      kinds: input kinds besides the registered ones.
    """

    tasks: Sequence[ReadTask] = ()
    config: InputConfig = InputConfig(("unused",))
    max_image_bytes: int = DecodeConfig.max_image_bytes
    plan_files: Sequence[str] = ()
    spread: bool = True
    kinds: Sequence[InputKind] = ()

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    @classmethod
    def from_patterns(
        cls, *patterns: str | os.PathLike[str], kinds: Sequence[InputKind] = (), **settings: Any
    ) -> ReadImages:
        """Reads what files, directories and globs name: `ReadImages.from_patterns("photos", "more/*.png")`.

        Args:
          *patterns: as in `--input`.
          kinds: input kinds besides the registered ones; a file is of the first kind that recognises its name.
          **settings: other fields of `pipeline.core.settings.InputConfig`, such as `key_feature`.

        Raises:
          InputError: nothing matched.
        """
        config = InputConfig(tuple(os.fspath(pattern) for pattern in patterns), **settings)
        files = find_inputs(config, kinds=kinds)
        return cls(make_tasks(files, kinds), config, kinds=kinds)

    @classmethod
    def from_plan(
        cls, plan_files: Sequence[str], config: InputConfig, max_image_bytes: int, *, spread: bool
    ) -> ReadImages:
        """Reads the tasks of a written plan."""
        return cls((), config, max_image_bytes, plan_files, spread)

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Applies the transform to the root of a pipeline."""
        parts = (
            root | "Once" >> beam.Impulse() | "Parts" >> beam.ParDo(_PartsFn(self.tasks, self.plan_files, self.kinds))
        )
        if self.spread:
            parts |= "Spread" >> beam.Reshuffle()
        settings = ReadSettings(self.config, self.max_image_bytes)
        return parts | "Read" >> beam.ParDo(_ReadFn(settings, self.kinds))


@carry_causes
class _PartsFn(beam.DoFn):
    def __init__(self, tasks: Sequence[ReadTask], plan_files: Sequence[str], kinds: Sequence[InputKind]) -> None:
        self._tasks = tuple(tasks)
        self._plan_files = tuple(plan_files)
        self._kinds = tuple(kinds)

    def process(self, _: bytes) -> Iterator[TaskPart]:
        planned = itertools.chain.from_iterable(map(read_plan, self._plan_files))  # one file at a time in memory
        for task in itertools.chain(self._tasks, planned):
            yield from cut_task(task, PART_BYTES, self._kinds)


class _PartRestrictions(RestrictionProvider):
    """The positions of a part as a restriction."""

    def initial_restriction(self, part: TaskPart) -> OffsetRange:
        return OffsetRange(part.start, part.stop)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, part: TaskPart, restriction: OffsetRange) -> int:
        return part.bytes_between(restriction.start, restriction.stop)


@carry_causes
class _ReadFn(beam.DoFn):
    def __init__(self, settings: ReadSettings, kinds: Sequence[InputKind]) -> None:
        self._settings = settings
        self._kinds = tuple(kinds)
        self._read = Metrics.counter("pipeline", READ_COUNTER)

    def process(
        self, part: TaskPart, tracker: Any = beam.DoFn.RestrictionParam(_PartRestrictions())
    ) -> Iterator[ImageRecord | Failure]:
        refused = False
        self._read.inc(0)  # so that the count is there even if there is nothing

        def claim(position: int) -> bool:
            nonlocal refused
            refused = not tracker.try_claim(position)
            return not refused

        def end() -> int:
            nonlocal refused
            refused = True
            tracker.try_claim(restriction.stop)  # after which nothing is given away any more
            stop: int = tracker.current_restriction().stop
            return stop

        restriction = tracker.current_restriction()
        claimed = TaskPart(part.task, restriction.start, restriction.stop)
        for record in read_part(claimed, claim, self._settings, end=end, kinds=self._kinds):
            self._read.inc()
            if (
                self._settings.config.on_corrupt == "fail"
                and isinstance(record, Failure)
                and record.reason == "corrupt_record"
            ):
                raise TooManyFailures(f"{record.source}: {record.message}, and --on_corrupt=fail")
            yield record
        if not refused:
            # Tells the runner that no record begins in what is left of the part.
            tracker.try_claim(tracker.current_restriction().stop)
