"""The main job: plan, module, waves, summary."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import importlib.metadata
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.core import errors
from pipeline.core.config import RunConfig
from pipeline.core.console import describe_os_error
from pipeline.core.errors import IntegrityError, OutputError, PipelineError, TooManyFailures, UsageError
from pipeline.core.json import to_json
from pipeline.core.timing import timed
from pipeline.dataset import metadata, ownership
from pipeline.dataset.plan import Plan, Wave, make_plan, write_plan
from pipeline.dataset.reader import read_failures
from pipeline.inputs.base import InputFile
from pipeline.inputs.find import check_records, find_inputs
from pipeline.storage import filesystem

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

    from pipeline.beam.embed import EmbedImages
    from pipeline.embedding.function import EmbedderSpec
    from pipeline.embedding.spec import Spec
    from pipeline.storage.lock import LockToken

_log = logging.getLogger(__name__)

DIRECT_WAVE_BYTES = 2 << 30
"""Input bytes of a wave on the DirectRunner, unless told otherwise."""
_CAUSE = re.compile(
    r"(?:RuntimeError: )?([A-Za-z_.]*(?:Error|Exception|Failures|Interrupt)): (.*?)(?: \[while running .*)?"
)
VERSIONED_PACKAGES = ("apache-beam", "tensorflow", "openvino", "tfx-bsl", "numpy", "simplejpeg", "pillow")


@dataclass(frozen=True)
class Summary:
    """What a run did; `summary.json` holds the same.

    Attributes:
      records: records that were read, good or bad.
      embedded: records that have a vector.
      failed: records that have a failure line.
      skipped: records that an earlier run had done.
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
      zero_vectors: rows whose vector has only zeros.
      duplicate_vectors: rows whose vector is, to the bit, that of another row before it in the same file.
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
    zero_vectors: int = 0
    duplicate_vectors: int = 0


def run(config: RunConfig) -> Summary:
    """Runs the whole job and writes the data set, or what an existing one lacks.

    Raises:
      UsageError: the job cannot be done as asked; nothing was embedded.
      TooManyFailures: more records failed than allowed, or all; what was embedded is kept.
      IntegrityError: records were lost or counted twice.
      PipelineError: the pipeline failed; the waves that were committed before are kept.
    """
    if config.output.dry_run:
        raise UsageError("dry_run writes nothing, so there is no summary; call pipeline.job.dry_run.preview(config)")
    if config.output.verbose:
        logging.getLogger("pipeline").setLevel(logging.DEBUG)
    started = time.monotonic()
    checked = check_run(config)
    output = checked.output

    from pipeline.storage.lock import DatasetLock

    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(DatasetLock(output, steal=config.output.steal_lock))
        except OSError as error:
            raise OutputError(f"--output={output} cannot be written: {describe_os_error(error)}") from error
        try:
            return _Job(config, checked.options, output, checked.embedder, lock.token).run(checked.files, started)
        except OSError as error:
            raise PipelineError(
                f"the run to --output={output} stopped: {describe_os_error(error)}; what was committed is kept, start "
                "again to go on from there"
            ) from error


@dataclass(frozen=True)
class CheckedRun:
    """A run that can be done as asked, as far as can be told without its data set or a loaded module.

    Attributes:
      options: Beam's.
      output: directory of the data set, absolute where it is local.
      files: all that the data set should cover.
      embedder: what embeds, before its engine is chosen.
    """

    options: PipelineOptions
    output: str
    files: tuple[InputFile, ...]
    embedder: EmbedderSpec


def check_run(config: RunConfig) -> CheckedRun:
    """Finds out what a run is about.

    Raises:
      UsageError: the job cannot be done as asked.
    """
    # Imported here, not above: --help and a mistyped flag should not have to wait for Beam.
    with timed("importing Beam"):
        from apache_beam.io.filesystems import FileSystems

        from pipeline.beam import options as beam_options
        from pipeline.embedding.function import EmbedderSpec, find_function
        from pipeline.job.checks import check_directory
        from pipeline.job.prepare import threads_per_process

    options = beam_options.parse_beam_args(config.beam_args)
    beam_options.check_options(options)
    FileSystems.set_options(options)  # or Beam looks for them on the command line of this process
    output = filesystem.absolute(config.output.output)
    with timed("finding the inputs"):
        files = find_inputs(config.input, ownership.output_test(output))
        check_records(files)
    with timed("finding the module"):
        function = find_function(config.module, config.engine, threads=threads_per_process(options))
        embedder = EmbedderSpec.of(function, config.decode, config.engine)
    check_directory(filesystem.normalize(config.output.output))
    return CheckedRun(options, output, files, embedder)


def plan_run(config: RunConfig, options: PipelineOptions, output: str, files: Sequence[InputFile]) -> Plan:
    """Returns what a run has to do so that the data set in directory `output` covers some files.

    Raises:
      OutputError: a manifest of the data set cannot be read.
    """
    from pipeline.beam import options as beam_options

    settings = config.output
    default = DIRECT_WAVE_BYTES if beam_options.is_direct(options) else None
    manifests = () if settings.overwrite else metadata.read_manifests(output)
    failures = read_failures(output) if settings.retry_failed and manifests else ()
    return make_plan(files, manifests, wave_bytes=settings.wave_bytes or default, failures=failures)


@dataclass(frozen=True)
class _Job:
    """One run on a data set that is locked."""

    config: RunConfig
    options: PipelineOptions
    output: str
    embedder: EmbedderSpec
    lock: LockToken

    def run(self, files: Sequence[InputFile], started: float) -> Summary:
        from pipeline.job.checks import check_output
        from pipeline.job.prepare import bring_to_workers, load_module

        settings = self.config.output
        existing = check_output(self.config, self.output, self.embedder)
        plan = plan_run(self.config, self.options, self.output, files)
        if existing is not None and not plan.waves:
            ownership.remove_uncommitted(self.output)
            summary = self._summarize([], existing, plan.skipped, started)
        else:
            with timed("loading the module"):
                embed = bring_to_workers(load_module(self.embedder, self.options), self.options)
            if settings.overwrite:  # now that the new one can begin
                ownership.remove(self.output)
            assert embed.dataset_spec is not None
            self._begin(existing, embed.dataset_spec)
            manifests = [self._run_wave(wave, embed, index, len(plan.waves)) for index, wave in enumerate(plan.waves)]
            summary = self._summarize(manifests, embed.dataset_spec, plan.skipped, started)
        filesystem.write_atomically(filesystem.join(self.output, metadata.SUMMARY_NAME), to_json(summary))
        _check_failures(summary, settings.max_failure_rate)
        return summary

    def _begin(self, existing: Spec | None, spec: Spec) -> None:
        from pipeline.embedding.spec import check_same_space

        ownership.remove_uncommitted(self.output)
        if existing is None:
            metadata.write_spec(self.output, spec)
        else:
            check_same_space(self.output, existing, spec)

    def _run_wave(self, wave: Wave, embed: EmbedImages, index: int, count: int) -> metadata.Manifest:
        """Runs the pipeline of one wave and returns what it committed."""
        import apache_beam as beam

        from pipeline.beam import graph
        from pipeline.beam import options as beam_options
        from pipeline.beam.direct_runner import quick_graphs
        from pipeline.dataset.commit import WaveHeader

        config = self.config
        header = WaveHeader(
            name=wave.name,
            started=datetime.datetime.now(datetime.UTC),
            versions=package_versions(),
            plan_files=write_plan(self.output, wave),
            key_feature=config.input.key_feature,
            image_feature=config.input.image_feature,
            retried=wave.retried,
            lock=self.lock,
        )
        job = graph.WaveJob(
            header=header,
            input=config.input,
            max_image_bytes=config.decode.max_image_bytes,
            output=self.output,
            formats=config.output.output_format,
            compression=config.output.compression,
            embed=embed,
            spread=not beam_options.is_direct(self.options),
        )
        try:
            with quick_graphs():
                pipeline = beam.Pipeline(runner=beam_options.make_runner(self.options), options=self.options)
                graph.build(pipeline, job)
                result = pipeline.run()
                _wait(result, wave.name)
        except Exception as error:
            cause = _explain(error, wave.name)
            raise cause from (None if cause is error else error)
        manifest = metadata.read_manifest(self.output, wave.name)
        try:
            _check_counts(_records_read(result), manifest)
        except IntegrityError:
            # What is not accounted for does not count: the next start reads these inputs again.
            filesystem.delete([metadata.manifest_path(self.output, wave.name)])
            raise
        if count > 1:
            _log.info(
                "wave %d of %d: %d embedded, %d failed in %.1f s",
                index + 1,
                count,
                manifest.embedded,
                manifest.failed,
                manifest.seconds,
            )
        return manifest

    def _summarize(self, manifests: Sequence[metadata.Manifest], spec: Spec, skipped: int, started: float) -> Summary:
        from pipeline.beam import options as beam_options

        seconds = time.monotonic() - started
        embedded = sum(manifest.embedded for manifest in manifests)
        failed = sum(manifest.failed for manifest in manifests)
        reasons: Counter[str] = Counter()
        for manifest in manifests:
            reasons.update(manifest.failures_by_reason)
        return Summary(
            records=embedded + failed,
            embedded=embedded,
            failed=failed,
            skipped=skipped,
            failures_by_reason=dict(sorted(reasons.items())),
            seconds=round(seconds, 3),
            images_per_second=round(embedded / seconds, 3),
            waves=len(manifests),
            module=spec.module,
            module_sha256=spec.module_sha256,
            dimension=spec.dimension,
            engine=spec.engine,
            precision=spec.precision,
            runner=beam_options.runner_name(self.options),
            versions=package_versions(),
            zero_vectors=sum(manifest.zero_vectors for manifest in manifests),
            duplicate_vectors=sum(manifest.duplicate_vectors for manifest in manifests),
        )


def _wait(result: PipelineResult, wave: str) -> None:
    """Waits for a pipeline to finish; if the user interrupts, cancels a remote job."""
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _log.warning("interrupted: cancelling the job of wave %s", wave)
        try:
            result.cancel()
        except Exception as error:  # whatever a runner has against it, the interrupt counts
            _log.warning("the job could not be cancelled (%s); its wave will not count", error)
        raise


def _explain(error: Exception, wave: str) -> Exception:
    """Returns the cause of a failed pipeline, which the runner has buried under stacks of its own.

    That is an error of this package or of the operating system, told in one line, or else `error` itself.
    """
    if isinstance(error, PipelineError):
        return type(error)(str(error).partition(" [while running ")[0])
    causes = [match for line in str(error).splitlines() if (match := _CAUSE.fullmatch(line.strip()))]
    if not causes:
        return error
    name, text = causes[-1][1].rpartition(".")[2], causes[-1][2]
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    message = f"wave {wave} failed and was not committed: {text}; start again to go on from there"
    if isinstance(kind, type) and issubclass(kind, PipelineError):
        return kind(message)
    if isinstance(kind, type) and issubclass(kind, OSError):
        return PipelineError(message)
    return error


def _records_read(result: PipelineResult) -> int | None:
    """Returns how many records the pipeline's reader gave out; None if the runner does not tell."""
    from apache_beam.metrics import MetricsFilter

    from pipeline.beam.read import READ_COUNTER

    counters = result.metrics().query(MetricsFilter().with_name(READ_COUNTER))["counters"]
    counts = [counter.committed for counter in counters if counter.committed is not None]
    return sum(counts) if counts else None


def _check_counts(records_read: int | None, manifest: metadata.Manifest) -> None:
    if records_read is None:
        _log.warning("the runner does not tell how many records were read; that none was lost is not checked")
    elif records_read != manifest.embedded + manifest.failed:
        raise IntegrityError(
            f"wave {manifest.wave}: {records_read} records were read, but {manifest.embedded} embedded and "
            f"{manifest.failed} failed; expected the same number; please report this"
        )


@functools.cache
def package_versions() -> Mapping[str, str]:
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
