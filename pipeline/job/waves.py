"""Plans the waves of a run, and runs the pipeline of each."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from pipeline.beam import graph
from pipeline.beam import options as beam_options
from pipeline.beam.embed import EmbedImages
from pipeline.beam.progress import job_tally
from pipeline.core.config import RunConfig
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader
from pipeline.dataset.plan import Plan, Wave, make_plan
from pipeline.dataset.plan_files import write_plan
from pipeline.dataset.reader import read_failures
from pipeline.dataset.tables import stage_table
from pipeline.inputs.input_table import InputTable
from pipeline.inputs.tfrecord_files import DEFAULT_IMAGE_FEATURE
from pipeline.job.pipelines import JobTexts, run_pipeline
from pipeline.job.progress import Progress
from pipeline.job.summary import package_versions
from pipeline.storage.locked import LockedDirectory

DIRECT_WAVE_BYTES = 2 << 30
"""Input bytes of a wave on the DirectRunner by default."""
REMOTE_WAVE_BYTES = 256 << 30
"""Input bytes of a wave on other runners by default."""


def plan_run(
    config: RunConfig, options: PipelineOptions, output: str, manifests: Sequence[metadata.Manifest], files: InputTable
) -> Plan:
    """Returns the plan of a run that embeds `files` into a data set.

    Args:
      config: of the run.
      options: Beam's.
      output: directory of the data set.
      manifests: of the data set.
      files: all files that the data set should cover.

    Raises:
      OutputError: a table of the data set cannot be read.
    """
    execution = config.execution
    wave_bytes = execution.wave_bytes or (DIRECT_WAVE_BYTES if beam_options.is_direct(options) else REMOTE_WAVE_BYTES)
    manifests = () if execution.overwrite else manifests
    failures = read_failures(output) if execution.retry_failed and manifests else ()
    return make_plan(
        files,
        output,
        manifests,
        wave_bytes=wave_bytes,
        failures=failures,
        image_feature=_image_feature(config),
    )


def _image_feature(config: RunConfig) -> str:
    """Returns the image feature in the form of manifests: the default of TFRecords stands for that of every kind."""
    return config.input.image_feature or DEFAULT_IMAGE_FEATURE


@dataclass(frozen=True)
class WaveRunner:
    """Runs the waves of a run, one pipeline for each.

    Attributes:
      config: of the run.
      options: Beam's.
      directory: the data set.
      embed: the transform that embeds, with a module that workers can load.
      main_format: format of the rows in `embeddings/`.
    """

    config: RunConfig
    options: PipelineOptions
    directory: LockedDirectory
    embed: EmbedImages
    main_format: str

    def run(self, name: str, wave: Wave, progress: Progress) -> metadata.Manifest:
        """Runs the pipeline of one wave and returns the manifest that it committed.

        Args:
          name: of the wave.
          wave: its files.
          progress: of the run; gets the function that counts the records of the wave.

        Raises:
          PipelineError: the pipeline failed, and the wave was not committed.
          IntegrityError: the pipeline lost records or counted some twice; the wave was not committed.
        """
        if beam_options.runs_in_process(self.options):
            # The job's own counters can be read at its end only, but its workers are threads of this process.
            before = self.embed.process_tally()
            progress.count_with(lambda: self.embed.process_tally() - before)
            self.submit(name, wave)
        else:
            self.submit(name, wave, lambda result: progress.count_with(lambda: job_tally(result)))
        return metadata.read_manifest(self.directory.path, name)

    def submit(self, name: str, wave: Wave, watch: Callable[[PipelineResult], None] = lambda _: None) -> None:
        """Runs the pipeline of one wave. If Beam's options name a template, only writes the pipeline there.

        Args:
          name: of the wave.
          wave: its files.
          watch: is called with the job when it has started.

        Raises:
          PipelineError: the pipeline failed, and the wave was not committed.
          IntegrityError: the pipeline lost records or counted some twice; the wave was not committed.
        """
        texts = JobTexts(
            job=f"the job of wave {name}",
            failed=f"wave {name} failed and was not committed",
            advice="start again to go on from there",
            leftover="its wave will not count",
        )
        run_pipeline(lambda pipeline: graph.build(pipeline, self._job(name, wave)), self.options, texts, watch)

    def _job(self, name: str, wave: Wave) -> graph.WaveJob:
        config = self.config
        retried = stage_table(self.directory, name, "retried", wave.sources())
        header = WaveHeader(
            name=name,
            started=datetime.datetime.now(datetime.UTC),
            versions=package_versions(),
            plan_files=write_plan(self.directory, name, wave),
            key_feature=config.input.key_feature,
            image_feature=_image_feature(config),
            retried=retried,
            main_format=self.main_format,
        )
        return graph.WaveJob(
            header=header,
            input=config.input,
            max_image_bytes=config.decode.max_image_bytes,
            output=self.directory,
            formats=config.output.output_format,
            compression=config.output.compression,
            embed=self.embed,
            spread=not beam_options.is_direct(self.options),
        )
