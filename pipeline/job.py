"""The main job: plan, module, waves, summary."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import dataset, plan, storage
from pipeline.config import RunConfig
from pipeline.errors import IntegrityError, OutputError, PipelineError, TooManyFailures

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

    from pipeline.prepare import PreparedModule

_log = logging.getLogger(__name__)

VERSIONED_PACKAGES = ("apache-beam", "tensorflow", "tfx-bsl", "numpy", "simplejpeg", "pillow")


@dataclass(frozen=True)
class Summary:
    """What a run did; `summary.json` holds the same.

    Attributes:
      records: records that were read, good or bad.
      embedded: records that have a vector.
      failed: records that have a failure line.
      skipped: input files that an earlier run had done.
      failures_by_reason: number of failures of each kind.
      seconds: how long the run took.
      images_per_second: `embedded / seconds`.
      waves: how many waves were committed.
      module: the module's handle.
      module_sha256: the module's digest.
      dimension: length of a vector.
      engine: what computed the vectors.
      precision: of the computation.
      runner: of the pipeline.
      versions: of the packages that took part.
    """

    records: int
    embedded: int
    failed: int
    skipped: int
    failures_by_reason: Mapping[str, int]
    seconds: float
    images_per_second: float
    waves: int
    module: str
    module_sha256: str
    dimension: int
    engine: str
    precision: str
    runner: str
    versions: Mapping[str, str]


def run(config: RunConfig) -> Summary:
    """Runs the whole job and writes the data set.

    Raises:
      UsageError: the job cannot be done as asked; nothing was embedded.
      TooManyFailures: more records failed than allowed, or all; what was embedded is kept.
      IntegrityError: records were lost or counted twice.
      PipelineError: the pipeline failed.
    """
    # Imported here, not above: --help and a mistyped flag should not have to wait for Beam.
    from pipeline import options as beam_options
    from pipeline.prepare import prepare_module

    started = time.monotonic()
    options = beam_options.parse_beam_args(config.beam_args)
    beam_options.make_runner(options)
    output = storage.normalize(config.output.output)
    files = plan.find_inputs(config.input)
    plan.check_records(files)
    _check_output(output, overwrite=config.output.overwrite)
    module = prepare_module(config, options)
    _begin(output, module.dataset_spec)
    manifest = _run_wave("00000", files, config, options, output, module)
    summary = _summarize([manifest], module, beam_options.runner_name(options), time.monotonic() - started)
    storage.write_atomically(storage.join(output, dataset.SUMMARY_NAME), dataset.to_json(summary))
    _check_failures(summary, config.output.max_failure_rate)
    return summary


def _check_output(output: str, *, overwrite: bool) -> None:
    """Makes sure that a new data set can begin in a directory."""
    try:
        if not storage.is_remote(output) and os.path.exists(output) and not os.path.isdir(output):
            raise OutputError(f"--output={output} is a file; expected a directory")
        if overwrite:
            dataset.remove(output)
        elif storage.exists(storage.join(output, dataset.SPEC_NAME)):
            raise OutputError(f"--output={output} already holds a data set; name another directory, or --overwrite it")
    except OSError as error:
        raise OutputError(f"--output={output} cannot be used: {error}") from error


def _begin(output: str, spec: dataset.Spec) -> None:
    try:
        storage.delete_directory(storage.join(output, dataset.STAGING_NAME))
        dataset.write_spec(output, spec)
    except OSError as error:
        raise OutputError(f"--output={output} cannot be written: {error}") from error


def _run_wave(
    name: str,
    files: Sequence[plan.InputFile],
    config: RunConfig,
    options: PipelineOptions,
    output: str,
    module: PreparedModule,
) -> dataset.Manifest:
    """Runs the pipeline of one wave and returns what it committed."""
    import apache_beam as beam

    from pipeline import graph
    from pipeline import options as beam_options

    pipeline = beam.Pipeline(runner=beam_options.make_runner(options), options=options)
    graph.build(
        pipeline,
        graph.Wave(name, files),
        input=config.input,
        decode=config.decode,
        output=output,
        compression=config.output.compression,
        spec=module.embedder_spec,
        shared=module.shared,
        versions=package_versions(),
    )
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        raise _explain(error, name) from error
    manifest = dataset.read_manifest(output, name)
    _check_counts(_records_read(result), manifest)
    return manifest


def _explain(error: Exception, wave: str) -> PipelineError:
    """Returns the failure of a pipeline in one line; the runner has buried it under its own stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    cause = next((line for line in reversed(lines) if "Error" in line or "Exception" in line), lines[-1])
    return PipelineError(f"wave {wave} failed and was not committed: {cause}")


def _records_read(result: PipelineResult) -> int | None:
    """Returns how many records the pipeline's reader gave out; None if the runner does not tell."""
    from apache_beam.metrics import MetricsFilter

    from pipeline.transforms.read import READ_COUNTER

    counters = result.metrics().query(MetricsFilter().with_name(READ_COUNTER))["counters"]
    counts = [counter.committed for counter in counters if counter.committed is not None]
    return sum(counts) if counts else None


def _check_counts(records_read: int | None, manifest: dataset.Manifest) -> None:
    if records_read is None:
        _log.warning("the runner does not tell how many records were read; that none was lost is not checked")
    elif records_read != manifest.embedded + manifest.failed:
        raise IntegrityError(
            f"wave {manifest.wave}: {records_read} records were read, but {manifest.embedded} embedded and "
            f"{manifest.failed} failed; expected the same number; please report this"
        )


def _summarize(manifests: Sequence[dataset.Manifest], module: PreparedModule, runner: str, seconds: float) -> Summary:
    embedded = sum(manifest.embedded for manifest in manifests)
    failed = sum(manifest.failed for manifest in manifests)
    reasons: Counter[str] = Counter()
    for manifest in manifests:
        reasons.update(manifest.failures_by_reason)
    return Summary(
        records=embedded + failed,
        embedded=embedded,
        failed=failed,
        skipped=0,
        failures_by_reason=dict(sorted(reasons.items())),
        seconds=round(seconds, 3),
        images_per_second=round(embedded / seconds, 3),
        waves=len(manifests),
        module=module.dataset_spec.module,
        module_sha256=module.dataset_spec.module_sha256,
        dimension=module.dataset_spec.dimension,
        engine=module.embedder_spec.engine,
        precision="float32",
        runner=runner,
        versions=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that shape a result, by name."""
    found = {}
    for name in VERSIONED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _check_failures(summary: Summary, max_failure_rate: float) -> None:
    rate = summary.failed / summary.records if summary.records else 0.0
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.failures_by_reason.items())
    if summary.records and not summary.embedded:
        raise TooManyFailures(
            f"none of {summary.records} records could be embedded ({reasons}); see the failures files"
        )
    if rate > max_failure_rate:
        raise TooManyFailures(
            f"{summary.failed} of {summary.records} records failed ({reasons}), more than "
            f"--max_failure_rate={max_failure_rate:g} allows; the others are kept; see the failures files"
        )
