"""`ReadImages`: turns read tasks into records."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from pipeline.beam.worker_errors import carry_causes
from pipeline.core.errors import TooManyFailures
from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.core.settings import DecodeConfig, InputConfig
from pipeline.dataset.plan_files import read_plan
from pipeline.inputs.base import InputKind, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.find import find_inputs
from pipeline.inputs.tasks import check_visible, cut_task, make_tasks, read_part

_RECORDS = "records"
_COUNTS = "counts"

PART_BYTES = 64 << 20
"""Initial size of a part of a task. The runner may split a part further while a worker reads it."""


@dataclass
class ReadImages(beam.PTransform):
    """Reads image files, and files of records such as TFRecords.

    Returns a PCollection of `ImageRecord`, and of `Failure` for each record that cannot be read; `EmbedImages`
    passes failures on. A reshuffle distributes descriptions of parts of files, and a splittable DoFn reads the
    parts: the runner can move the rest of a part from a slow worker to an idle one. Image bytes never cross a
    shuffle.

    Attributes:
      tasks: to read, from `pipeline.inputs.tasks.make_tasks`.
      config: names of the features to read; needed only for files of records.
      max_image_bytes: an image larger than this is a failure.
      plan_files: files with more tasks, from `pipeline.dataset.plan_files.write_plan`.
      spread: whether the workers are on several machines. Then a reshuffle distributes the parts before they are
        read: without it, some runners, such as Flink, keep all parts of a file on the worker that listed them. And
        each worker checks that it sees the inputs. One machine does not need the reshuffle, which costs about 20 ms.
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
        """Reads files, directories and globs: `ReadImages.from_patterns("photos", "more/*.png")`.

        Args:
          *patterns: as in `--input`.
          kinds: input kinds besides the registered ones. The first kind that recognises a file's name reads it.
          **settings: other fields of `pipeline.core.settings.InputConfig`, such as `key_feature`.

        Raises:
          InputError: nothing matched.
        """
        config = InputConfig(tuple(os.fspath(pattern) for pattern in patterns), **settings)
        files = find_inputs(config, kinds=kinds)
        return cls(make_tasks(files.by_path(), kinds), config, kinds=kinds)

    @classmethod
    def from_plan(
        cls, plan_files: Sequence[str], config: InputConfig, max_image_bytes: int, *, spread: bool
    ) -> ReadImages:
        """Reads the tasks of a written plan."""
        return cls((), config, max_image_bytes, plan_files, spread)

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Applies the transform to the root of a pipeline."""
        return self._apply(root).records

    def counted(self) -> CountedImages:
        """Returns the transform whose result is a `CountedRecords`."""
        return CountedImages(self)

    def _apply(self, root: beam.pvalue.PBegin) -> CountedRecords:
        parts = (
            root | "Once" >> beam.Impulse() | "Parts" >> beam.ParDo(_PartsFn(self.tasks, self.plan_files, self.kinds))
        )
        if self.spread:
            parts |= "Spread" >> beam.Reshuffle()
        settings = ReadSettings(self.config, self.max_image_bytes)
        read = parts | "Read" >> beam.ParDo(_ReadFn(settings, self.kinds, self.spread)).with_outputs(
            _COUNTS, main=_RECORDS
        )
        return CountedRecords(read[_RECORDS], read[_COUNTS])


class CountedRecords(NamedTuple):
    """The records of `ReadImages`, and numbers that add up to the number of records."""

    records: beam.PCollection
    counts: beam.PCollection


class CountedImages(beam.PTransform):
    """`ReadImages` with the number of records. The number travels as data: not every runner reports metrics."""

    def __init__(self, read: ReadImages) -> None:
        """Wraps a transform."""
        super().__init__()
        self._read = read

    def expand(self, root: beam.pvalue.PBegin) -> CountedRecords:
        """Applies the transform to the root of a pipeline."""
        return self._read._apply(root)


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
    def __init__(self, settings: ReadSettings, kinds: Sequence[InputKind], is_elsewhere: bool) -> None:
        self._settings = settings
        self._kinds = tuple(kinds)
        self._is_elsewhere = is_elsewhere

    def process(
        self, part: TaskPart, tracker: Any = beam.DoFn.RestrictionParam(_PartRestrictions())
    ) -> Iterator[ImageRecord | Failure | beam.pvalue.TaggedOutput]:
        if self._is_elsewhere:
            check_visible(part.task)
        refused = False
        count = 0

        def claim(position: int) -> bool:
            nonlocal refused
            refused = not tracker.try_claim(position)
            return not refused

        def end() -> int:
            nonlocal refused
            refused = True
            tracker.try_claim(restriction.stop)  # the runner splits nothing off after this
            stop: int = tracker.current_restriction().stop
            return stop

        restriction = tracker.current_restriction()
        claimed = TaskPart(part.task, restriction.start, restriction.stop)
        for record in read_part(claimed, claim, self._settings, end=end, kinds=self._kinds):
            count += 1
            if (
                self._settings.config.on_corrupt == "fail"
                and isinstance(record, Failure)
                and record.reason == "corrupt_record"
            ):
                raise TooManyFailures(f"{record.source}: {record.message}, and --on_corrupt=fail")
            yield record
        if not refused:
            # No record begins in the rest of the part: claim it, as the runner expects.
            tracker.try_claim(tracker.current_restriction().stop)
        if count:
            yield beam.pvalue.TaggedOutput(_COUNTS, count)
