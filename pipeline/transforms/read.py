"""`ReadImages`: read tasks to records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from pipeline.plan import ReadTask
from pipeline.records import Failure, ImageRecord
from pipeline.settings import InputConfig
from pipeline.sources import read_task

READ_COUNTER = "records-read"


@dataclass
class ReadImages(beam.PTransform):
    """Reads the tasks that `pipeline.plan.make_tasks` made.

    Gives a PCollection of `ImageRecord`, and of `Failure` for what could not be read, so that nothing
    is dropped on the way; `EmbedImages` passes failures on. Only tasks cross the shuffle that spreads
    the work over the workers, never the bytes of an image.

    Attributes:
      tasks: what to read.
      config: names of the features to read.
      max_image_bytes: an image file larger than this is a failure.
    """

    tasks: Sequence[ReadTask]
    config: InputConfig
    max_image_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Applies the transform to the root of a pipeline."""
        return (
            root
            | "Tasks" >> beam.Create(list(self.tasks), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadFn(self.config, self.max_image_bytes))
        )


class _ReadFn(beam.DoFn):
    def __init__(self, config: InputConfig, max_image_bytes: int) -> None:
        self._config = config
        self._max_image_bytes = max_image_bytes
        self._read = Metrics.counter("pipeline", READ_COUNTER)

    def process(self, task: ReadTask) -> Iterator[ImageRecord | Failure]:
        for record in read_task(task, self._config, max_image_bytes=self._max_image_bytes):
            self._read.inc()
            yield record
