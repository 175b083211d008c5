"""A preview of a run: plans the run and embeds a small sample; writes nothing."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from pipeline.core.config import RunConfig
from pipeline.core.failures import Failure
from pipeline.core.records import ImageRecord
from pipeline.dataset.plan import covered_inputs
from pipeline.embedding.dataset_spec import Spec
from pipeline.embedding.embedder import Embedder
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.tasks import find_kind, read_tasks
from pipeline.job.checks import check_output, check_run
from pipeline.job.prepare import load_module
from pipeline.job.waves import plan_run

SAMPLE_RECORDS = 64
_VECTOR_VALUE_BYTES = 4


@dataclass(frozen=True)
class Preview:
    """A preview of a run.

    Attributes:
      files: input files that are new or changed.
      input_bytes: size of these files.
      skipped: records that earlier runs have done.
      waves: waves that the run would commit.
      spec: of the data set.
      sample_records: records in the sample.
      sample_embedded: records of the sample that were embedded.
      failures: of the sample.
      records: number of records, estimated from the sample.
      seconds: time to embed them on this machine, estimated from the sample.
      output_bytes: size of their vectors, estimated from the sample.
    """

    files: int
    input_bytes: int
    skipped: int
    waves: int
    spec: Spec
    sample_records: int
    sample_embedded: int
    failures: tuple[Failure, ...]
    records: int
    seconds: float
    output_bytes: int

    def __str__(self) -> str:
        spec = self.spec
        lines = [
            f"{self.files} files to read ({self.input_bytes / 1e6:.1f} MB); {self.skipped} records done before",
            f"module {spec.module} ({spec.module_sha256[:12]}), signature {spec.signature}, output {spec.output_key}: "
            f"{spec.preprocessing.height}x{spec.preprocessing.width} pixels to {spec.dimension} values",
            f"sample: {self.sample_embedded} of {self.sample_records} records embedded",
            *(f"  failed: {failure.source}: {failure.reason}: {failure.message}" for failure in self.failures),
            f"a run would commit {self.waves} waves, some {self.records} records, and take about "
            f"{self.seconds:.0f} s on this machine, for {self.output_bytes / 1e6:.1f} MB of vectors",
            "nothing was written",
        ]
        return "\n".join(lines)


def preview(config: RunConfig) -> Preview:
    """Returns a preview of `pipeline.run` with the same configuration.

    Raises:
      UsageError: the request cannot be fulfilled.
    """
    checked = check_run(config)
    check_output(config, checked.output, checked.embedder)
    plan = plan_run(config, checked.options, checked.output, checked.files)
    embed = load_module(checked.embedder, checked.options)
    assert embed.dataset_spec is not None
    tasks = [task for wave in plan.waves for task in wave.tasks]
    settings = ReadSettings(config.input, config.decode.max_image_bytes)
    found = list(itertools.islice(read_tasks(tasks, settings), SAMPLE_RECORDS))
    sample = [record for record in found if isinstance(record, ImageRecord)]
    with embed.shared.acquire(lambda: Embedder.load(embed.spec)) as embedder:
        started = time.monotonic()
        batches = list(embedder.stream(sample))
        seconds = time.monotonic() - started
    embedded = sum(batch.num_rows for batch in batches)
    failures = [record for record in found if isinstance(record, Failure)]
    failures += [failure for batch in batches for failure in batch.failures]
    sample_bytes = sum(len(record.image) for record in sample)
    input_bytes = sum(find_kind(task.kind).size_bytes(task) for task in tasks)
    is_all = len(found) < SAMPLE_RECORDS
    scale = 1.0 if is_all or not sample_bytes else input_bytes / sample_bytes
    return Preview(
        files=sum(len(covered_inputs(wave.tasks, config.input.key_feature)) for wave in plan.waves),
        input_bytes=input_bytes,
        skipped=plan.skipped,
        waves=len(plan.waves),
        spec=embed.dataset_spec,
        sample_records=len(found),
        sample_embedded=embedded,
        failures=tuple(failures),
        records=round(scale * len(found)),
        seconds=scale * seconds,
        output_bytes=round(scale * embedded * embed.dataset_spec.dimension * _VECTOR_VALUE_BYTES),
    )
