"""Checks and compacts a data set on the workers of a runner."""

from __future__ import annotations

import functools
import logging
import uuid

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import options as beam_options
from pipeline.beam.maintain import CheckFiles, ReadCurrent, Reports, Waves, WriteReports
from pipeline.beam.write import WriteEmbeddings
from pipeline.core.errors import IntegrityError
from pipeline.core.json import from_json
from pipeline.dataset.compact import CompactedWave, Compaction, compact
from pipeline.dataset.metadata import Manifest, read_manifest, read_manifests, require_spec
from pipeline.dataset.verify import Report, add_up, files_of
from pipeline.job.pipelines import JobTexts, run_pipeline
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory

_log = logging.getLogger(__name__)

_PURPOSE = "for the results of its workers"


def verify_on_runner(output: str, options: PipelineOptions) -> Report:
    """Checks every file of the data set in directory `output` on the workers of a runner.

    The reports of the workers return through one file below `--temp_location`, which is removed afterwards.

    Args:
      output: directory of the data set, which workers can read too.
      options: Beam's; they name a runner whose workers are elsewhere.

    Raises:
      UsageError: the runner cannot be used, or the options name no `--temp_location`.
      OutputError: there is no data set, or a manifest or a table cannot be read.
      PipelineError: the job failed.
    """
    location = _shared_directory(options)
    output = filesystem.absolute(output)
    spec, manifests = require_spec(output), read_manifests(output)
    path = filesystem.join(location, f"verify-{uuid.uuid4().hex}.json")
    texts = JobTexts(
        job=f"the job that checks {output}",
        failed=f"the check of {output} failed",
        advice="start again",
        leftover="it changes nothing",
    )

    def build(pipeline: beam.Pipeline) -> None:
        check = CheckFiles(Waves.of(output, manifests), spec)
        pipeline | "CheckFiles" >> check | "WriteReports" >> WriteReports(path)

    try:
        run_pipeline(build, options, texts)
        reports = from_json(Reports, filesystem.read_bytes(path)).reports
    finally:
        _remove(path)
    files = {entry.path for manifest in manifests for entry in files_of(manifest)}
    missing = files - {report.path for report in reports}
    if missing:
        raise IntegrityError(
            f"{texts.failed}: {len(missing)} of {len(files)} files have no result, such as {min(missing)}; expected "
            "one for each; please report this"
        )
    return add_up(output, manifests, reports)


def compact_on_runner(output: str, options: PipelineOptions, *, steal_lock: bool = False) -> Compaction:
    """Does the same as `pipeline.dataset.compact.compact` on the workers of a runner.

    Args:
      output: directory of the data set, which workers can write too.
      options: Beam's; they name a runner whose workers are elsewhere.
      steal_lock: whether to take over from another process that seems to be alive.

    Raises:
      UsageError: the runner cannot be used, or the options name no `--temp_location`.
      OutputError: there is no data set, it is damaged, or another run is writing to it.
      IntegrityError: the job lost rows or counted some twice; the old waves stay.
      PipelineError: the job failed; the old waves stay.
      OSError: a file cannot be read or written.
    """
    _shared_directory(options)
    return compact(
        filesystem.absolute(output), steal_lock=steal_lock, rewrite=functools.partial(_rewrite_on_runner, options)
    )


def _rewrite_on_runner(options: PipelineOptions, directory: LockedDirectory, target: CompactedWave) -> Manifest:
    output, header = directory.path, target.header
    texts = JobTexts(
        job=f"the job that compacts {output}",
        failed=f"the compaction of {output} failed and changed nothing",
        advice="start again",
        leftover="its wave will not count",
    )
    spec, manifests = require_spec(output), read_manifests(output)

    def build(pipeline: beam.Pipeline) -> None:
        batches, counts = pipeline | "ReadCurrent" >> ReadCurrent(Waves.of(output, manifests, target.formats))
        write = WriteEmbeddings(directory, target.formats, target.compression, header, spec, counts)
        batches | "WriteEmbeddings" >> write

    run_pipeline(build, options, texts)
    return read_manifest(output, header.name)


def _shared_directory(options: PipelineOptions) -> str:
    """Checks the options; returns the directory that this process shares with the workers."""
    beam_options.check_options(options, _PURPOSE)
    FileSystems.set_options(options)  # otherwise Beam reads them from the command line of this process
    location = beam_options.staging_location(options, _PURPOSE)
    assert location is not None, "the workers run elsewhere"
    return filesystem.absolute(location)


def _remove(path: str) -> None:
    try:
        filesystem.delete([path])
    except OSError as error:
        _log.warning("%s could not be removed (%s); it is not needed any more", path, error)
