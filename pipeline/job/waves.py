"""Plans the waves of a run, and runs the pipeline of each."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from pipeline.beam import graph
from pipeline.beam import options as beam_options
from pipeline.beam.embed import EmbedImages
from pipeline.beam.internals import without_step_note
from pipeline.beam.read import READ_COUNTER
from pipeline.beam.worker_errors import cause_of
from pipeline.core.config import RunConfig
from pipeline.core.errors import IntegrityError, PipelineError, UsageError
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader
from pipeline.dataset.plan import Plan, Wave, make_plan, write_plan
from pipeline.dataset.reader import read_failures
from pipeline.inputs.base import InputFile
from pipeline.job.summary import package_versions
from pipeline.storage import filesystem
from pipeline.storage.lock import LockToken

_log = logging.getLogger(__name__)

DIRECT_WAVE_BYTES = 2 << 30
"""Input bytes of a wave on the DirectRunner by default."""
_MAX_REASON_CHARACTERS = 500


def plan_run(config: RunConfig, options: PipelineOptions, output: str, files: Sequence[InputFile]) -> Plan:
    """Returns the plan of a run that embeds `files` into the data set in directory `output`.

    Raises:
      OutputError: a manifest of the data set cannot be read.
    """
    execution = config.execution
    default = DIRECT_WAVE_BYTES if beam_options.is_direct(options) else None
    manifests = () if execution.overwrite else metadata.read_manifests(output)
    failures = read_failures(output) if execution.retry_failed and manifests else ()
    return make_plan(files, manifests, wave_bytes=execution.wave_bytes or default, failures=failures)


@dataclass(frozen=True)
class WaveRunner:
    """Runs the waves of a run, one pipeline for each.

    Attributes:
      config: of the run.
      options: Beam's.
      output: directory of the data set.
      embed: the transform that embeds, with a module that workers can load.
      lock: of the data set.
    """

    config: RunConfig
    options: PipelineOptions
    output: str
    embed: EmbedImages
    lock: LockToken

    def run(self, wave: Wave) -> metadata.Manifest:
        """Runs the pipeline of one wave and returns the manifest that it committed.

        Raises:
          PipelineError: the pipeline failed, and the wave was not committed.
          IntegrityError: the pipeline lost records or counted some twice; the manifest of the wave is removed.
        """
        pipeline = beam.Pipeline(runner=beam_options.make_runner(self.options), options=self.options)
        graph.build(pipeline, self._job(wave))
        try:
            result = pipeline.run()
            _wait(result, wave.name)
        except Exception as error:
            cause = self._explain(error, wave.name)
            raise cause from (cause.__cause__ if cause is error else error)
        manifest = metadata.read_manifest(self.output, wave.name)
        try:
            _check_counts(_records_read(result), manifest)
        except IntegrityError:
            # The next start reads these inputs again.
            filesystem.delete([metadata.manifest_path(self.output, wave.name)])
            raise
        return manifest

    def _job(self, wave: Wave) -> graph.WaveJob:
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
        return graph.WaveJob(
            header=header,
            input=config.input,
            max_image_bytes=config.decode.max_image_bytes,
            output=self.output,
            formats=config.output.output_format,
            compression=config.output.compression,
            embed=self.embed,
            spread=not beam_options.is_direct(self.options),
        )

    def _explain(self, error: Exception, wave: str) -> Exception:
        """Returns the error of a failed pipeline for the user: its cause, `error` itself, or a summary of `error`."""
        cause = cause_of(error)
        if isinstance(cause, UsageError):  # its message says what to do; a second start would not help
            return cause
        if cause is not None:
            text = f"wave {wave} failed and was not committed: {cause}; start again to go on from there"
            cause.args = (text,)  # keeps the class, and with it the exit code
            return cause
        if isinstance(error, PipelineError | OSError) or beam_options.is_direct(self.options):
            return error
        return PipelineError(
            f"the job of wave {wave} failed on {beam_options.runner_name(self.options)}: {last_line(str(error))}; see "
            "the runner's logs, and start again to go on from there"
        )


def last_line(text: str) -> str:
    """Returns the last line of a failure's text that names an error, not a stack frame.

    Some runners escape line breaks. Stack frames are indented, in Python and in Java.
    """
    lines = text.replace("\\n", "\n").replace("\\t", "\t").splitlines()
    named = [line.strip() for line in lines if line.strip() and not line[0].isspace()]
    reason = without_step_note(named[-1]) if named else "no reason given"
    return reason if len(reason) <= _MAX_REASON_CHARACTERS else f"{reason[:_MAX_REASON_CHARACTERS]}..."


def _wait(result: PipelineResult, wave: str) -> None:
    """Waits for a pipeline to finish; if the user interrupts, cancels a remote job."""
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        _log.warning("interrupted: cancelling the job of wave %s", wave)
        try:
            result.cancel()
        except Exception as error:  # any error of the runner: the interrupt has priority
            _log.warning("the job could not be cancelled (%s); its wave will not count", error)
        raise


def _records_read(result: PipelineResult) -> int | None:
    """Returns the number of records that the pipeline read; None if the runner does not report it."""
    counters = result.metrics().query(MetricsFilter().with_name(READ_COUNTER))["counters"]
    counts = [counter.committed for counter in counters if counter.committed is not None]
    return sum(counts) if counts else None


def _check_counts(records_read: int | None, manifest: metadata.Manifest) -> None:
    if records_read is None:
        _log.warning("the runner does not report how many records were read; lost records would go unnoticed")
    elif records_read != manifest.embedded + manifest.failed:
        raise IntegrityError(
            f"wave {manifest.wave}: {records_read} records were read, but {manifest.embedded} embedded and "
            f"{manifest.failed} failed; expected the same number; please report this"
        )
