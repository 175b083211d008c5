"""Counts of a running job: each worker counts what it embeds, and the launcher asks for the counts."""

from __future__ import annotations

from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

from pipeline.beam.internals import current_metrics
from pipeline.embedding.tally import Tally, TallyCounter

NAMESPACE = "pipeline"
_COUNTERS = ("images-embedded", "images-failed", "encoded-bytes")


class WorkerTally:
    """Counts of one DoFn: as counters of the job, and for the launcher if it is this process."""

    def __init__(self) -> None:
        self._counters = [Metrics.counter(NAMESPACE, name) for name in _COUNTERS]

    def add(self, tally: Tally, shared: TallyCounter) -> None:
        """Adds counts, while Beam processes a bundle.

        Args:
          tally: the counts.
          shared: the counts of this process, for a launcher that is this process too.
        """
        shared.add(tally)
        counts = (tally.embedded, tally.failed, tally.encoded_bytes)
        for counter, count in zip(self._counters, counts, strict=True):
            if count:
                counter.inc(count)


def job_tally(result: PipelineResult) -> Tally:
    """Returns the counts of a job so far, from its runner; zeros if the runner has none yet.

    Raises:
      Exception: any error of a runner that does not answer.
    """
    found = current_metrics(result).query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    counts = {counter.key.metric.name: counter.result or 0 for counter in found}
    return Tally(*(counts.get(name, 0) for name in _COUNTERS))
