"""A preview of a run: plans the run and embeds a small sample; writes nothing."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.config import RunConfig
from pipeline.core.cores import usable_cores
from pipeline.core.failures import Failure
from pipeline.dataset.metadata import read_manifests
from pipeline.embedding.dataset_spec import BY_MODULE, Spec
from pipeline.embedding.embedder import Embedder
from pipeline.images.resize import resize_in_calling_thread
from pipeline.inputs.base import ReadSettings
from pipeline.job.checks import check_output, check_run
from pipeline.job.estimate import Estimate, GroupSample, estimate
from pipeline.job.prepare import load_module
from pipeline.job.sample import PlannedWork, SampleReader, TaskGroup, share, summarize_plan
from pipeline.job.waves import plan_run

SAMPLE_RECORDS = 64
_VECTOR_VALUE_BYTES = 4
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1 << 10
"""Unit of `ru_maxrss`."""


@dataclass(frozen=True)
class Preview:
    """A preview of a run.

    Attributes:
      work: of the plan.
      spec: of the data set.
      sample_records: records in the sample.
      sample_embedded: records of the sample that were embedded.
      failures: of the sample.
      estimate: records and core time of the whole run, from the sample.
      memory_bytes: peak resident size of this process after the sample.
      workers: number of workers that share the work; a worker is one vCPU (one core).
      price_per_vcpu_hour: of one worker; None if unknown.
    """

    work: PlannedWork
    spec: Spec
    sample_records: int
    sample_embedded: int
    failures: tuple[Failure, ...]
    estimate: Estimate
    memory_bytes: int
    workers: int
    price_per_vcpu_hour: float | None

    @property
    def output_bytes(self) -> int:
        """Size of the vectors."""
        return self.estimate.embedded * self.spec.dimension * _VECTOR_VALUE_BYTES

    def __str__(self) -> str:
        spec, work, found = self.spec, self.work, self.estimate
        files = sum(group.files for group in work.groups)
        size_bytes = sum(group.size_bytes for group in work.groups)
        lines = [
            ("input", f"{_count(files, 'file')} ({_bytes(size_bytes)}); {work.skipped:,} records done before"),
            (
                "module",
                f"{spec.module} ({spec.module_sha256[:12]}), signature {spec.signature}, output {spec.output_key}: "
                f"{_input(spec)} to {spec.dimension} values",
            ),
            ("sample", f"{self.sample_embedded} of {_count(self.sample_records, 'record')} embedded"),
            *(("  failed", f"{item.source}: {item.reason}: {item.message}") for item in self.failures),
            (
                "run",
                f"{self._records()} in {_count(work.waves, 'wave')}, {_bytes(self.output_bytes)} of vectors"
                f"{self._accuracy()}",
            ),
        ]
        if found.core_seconds:
            lines += self._resources()
        width = max(len(label) for label, _ in lines)
        return "\n".join([*(f"{label:{width}}  {text}" for label, text in lines), "nothing was written"])

    def _records(self) -> str:
        records = self.estimate.records
        if self.estimate.is_exact:
            return _count(records, "record")
        return f"about {_count(round(records, 3 - len(str(records))) if records > 999 else records, 'record')}"

    def _accuracy(self) -> str:
        is_rough = not self.estimate.is_exact and any(group.is_compressed for group in self.work.groups)
        return " (rough: some files are compressed)" if is_rough else ""

    def _resources(self) -> list[tuple[str, str]]:
        found, price = self.estimate, self.price_per_vcpu_hour
        lines = [
            ("one core", f"{_number(found.images_per_second)} images/s"),
            (
                _count(self.workers, "worker"),
                f"{_duration(found.seconds(self.workers))}, {_number(found.vcpu_hours)} vCPU hours "
                "(a worker is one vCPU; without start-up)",
            ),
            ("memory", f"{_bytes(self.memory_bytes)} for each worker process (the peak of this process)"),
        ]
        if price is not None:
            lines.append(
                (
                    "cost",
                    f"{_number(price * found.vcpu_hours)} for this input, "
                    f"{_number(price * found.vcpu_hours_per_million)} for a million images, at {price:g} per vCPU hour",
                )
            )
        return lines


def _input(spec: Spec) -> str:
    size = spec.preprocessing
    return "encoded images" if size == BY_MODULE else f"{size.height}x{size.width} pixels"


def preview(config: RunConfig) -> Preview:
    """Returns a preview of `pipeline.run` with the same configuration.

    Raises:
      UsageError: the request cannot be fulfilled.
    """
    checked = check_run(config)
    manifests = read_manifests(checked.output)
    check_output(config, checked.output, manifests, checked.embedder)
    work = summarize_plan(plan_run(config, checked.options, checked.output, manifests, checked.files))
    embed = load_module(checked.embedder, checked.options, certified=False)
    assert embed.dataset_spec is not None
    settings = ReadSettings(config.input, config.decode.max_image_bytes)
    resize_in_calling_thread()  # as on a worker
    with embed.shared.acquire(lambda: Embedder.load(embed.spec)) as embedder:
        samples = _embed_sample(embedder, work.groups, settings)
    measured = [sample.measured for sample in samples]
    execution = config.execution
    return Preview(
        work=work,
        spec=embed.dataset_spec,
        sample_records=sum(group.records for group in measured),
        sample_embedded=sum(group.embedded for group in measured),
        failures=tuple(failure for sample in samples for failure in sample.failures),
        estimate=estimate(measured),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES,
        workers=execution.workers or usable_cores(),
        price_per_vcpu_hour=execution.price_per_vcpu_hour,
    )


@dataclass(frozen=True)
class _EmbeddedSample:
    measured: GroupSample
    failures: tuple[Failure, ...]


def _embed_sample(embedder: Embedder, groups: Sequence[TaskGroup], settings: ReadSettings) -> list[_EmbeddedSample]:
    """Embeds a sample that has about as many records of each group."""
    samples: list[_EmbeddedSample] = []
    left = SAMPLE_RECORDS
    for index, group in enumerate(groups):
        # The first images of a kind cost more: threads start, and lazily loaded code and buffers are made.
        for future in [embedder.submit([record]) for record in SampleReader(group, settings, embedder.threads)]:
            embedder.result(future)
        sample = _embed_group(embedder, SampleReader(group, settings, share(left, index, len(groups))), group)
        samples.append(sample)
        left -= sample.measured.records
    return samples


def _embed_group(embedder: Embedder, reader: SampleReader, group: TaskGroup) -> _EmbeddedSample:
    started = time.process_time()  # of all threads; time in which other processes have the cores does not count
    batches = list(embedder.stream(reader))
    cpu_seconds = time.process_time() - started
    measured = GroupSample(
        tasks=reader.measure(),
        total=group.total,
        is_counted=not group.has_records,
        embedded=sum(batch.num_rows for batch in batches),
        cpu_seconds=cpu_seconds,
    )
    failures = (*reader.failures, *(failure for batch in batches for failure in batch.failures))
    return _EmbeddedSample(measured, failures)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    """Returns a number with two significant digits, or as a whole number from 10 on."""
    if 0 < value < 0.001:
        return "less than 0.001"
    return f"{value:#.2g}".rstrip(".") if value < 10 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{_number(seconds / size)} {unit}"
    return f"{_number(seconds)} s"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{_number(count / size)} {unit}"
    return f"{_number(count / 1e3)} kB"
