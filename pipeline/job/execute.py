"""One run, which locks its data set: checks, plan, module, waves, summary."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.beam import options as beam_options
from pipeline.core.config import RunConfig
from pipeline.core.console import describe_os_error, make_room
from pipeline.core.errors import OutputError, PipelineError
from pipeline.core.json import to_json
from pipeline.core.timing import timed
from pipeline.dataset import metadata, ownership
from pipeline.dataset.plan import Plan
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.job.checks import CheckedRun, check_output, check_run
from pipeline.job.prepare import bring_to_workers, load_module
from pipeline.job.progress import Display, Progress
from pipeline.job.summary import Summary, check_failures, summarize
from pipeline.job.waves import WaveRunner, plan_run
from pipeline.storage.lock import DatasetLock
from pipeline.storage.locked import LockedDirectory

_log = logging.getLogger(__name__)


def execute(config: RunConfig, started: float, display: Display) -> Summary:
    """Runs the whole job; see `pipeline.job.run.run`.

    Args:
      config: of the run.
      started: when the run started, by `time.monotonic`.
      display: shows the progress.
    """
    with locked_run(config) as run:
        return run.run(started, display)


@contextlib.contextmanager
def locked_run(config: RunConfig) -> Iterator[LockedRun]:
    """Checks a run and locks its data set.

    Raises:
      UsageError: the request cannot be fulfilled.
      OutputError: another run writes the data set, or it cannot be written.
      PipelineError: the body stopped with an `OSError`.
    """
    checked = check_run(config)
    output = checked.output
    with contextlib.ExitStack() as stack:
        lock = DatasetLock(output, steal=config.execution.steal_lock)
        try:
            directory = stack.enter_context(lock)
        except OSError as error:
            raise OutputError(f"--output={output} cannot be written: {describe_os_error(error)}") from error
        try:
            yield LockedRun(config, checked, lock, directory)
        except OSError as error:
            raise PipelineError(
                f"the run to --output={output} stopped: {describe_os_error(error)}; what was committed is kept, "
                f"{make_room(str(error))}start again to go on from there"
            ) from error


@dataclass(frozen=True)
class PreparedRun:
    """A run whose waves can start.

    Attributes:
      plan: of the waves.
      spec: of the data set.
      first: number of the first wave.
      waves: runs the waves; None if there are none.
      committed: the manifests that the data set has before the first wave.
    """

    plan: Plan
    spec: Spec
    first: int
    waves: WaveRunner | None
    committed: tuple[metadata.Manifest, ...]


@dataclass(frozen=True)
class LockedRun:
    """A run that holds the lock of its data set.

    Attributes:
      config: of the run.
      checked: the run after its checks.
      lock: of the data set.
      directory: the right to change the data set.
    """

    config: RunConfig
    checked: CheckedRun
    lock: DatasetLock
    directory: LockedDirectory

    def prepare(self) -> PreparedRun:
        """Plans the run, loads its module, and prepares the data set for its vectors.

        Raises:
          UsageError: the request cannot be fulfilled.
          OSError: the data set cannot be read or written.
        """
        checked, directory = self.checked, self.directory
        committed = ownership.remove_remains(directory)
        existing = check_output(self.config, directory.path, committed, checked.embedder)
        with timed("planning"):
            plan = plan_run(self.config, checked.options, directory.path, committed, checked.files)
        if existing is not None and not plan.waves:
            return PreparedRun(plan, existing, int(metadata.next_wave(committed)), None, committed)
        with timed("loading the module"):
            embed = load_module(checked.embedder, checked.options, certified=existing is None)
            embed = bring_to_workers(embed, checked.options)
        spec = embed.dataset_spec
        assert spec is not None
        committed = self._begin(existing, spec, committed)
        if existing is not None:
            spec = dataclasses.replace(spec, certificate=existing.certificate)
        main_format = metadata.main_format_of(committed, self.config.output.output_format)
        embed = dataclasses.replace(embed, dataset_spec=spec)
        waves = WaveRunner(self.config, checked.options, directory, embed, main_format)
        return PreparedRun(plan, spec, int(metadata.next_wave(committed)), waves, committed)

    def run(self, started: float, display: Display) -> Summary:
        """Runs all waves and writes the summary; see `execute`."""
        prepared = self.prepare()
        manifests = [] if prepared.waves is None else _run_waves(prepared.waves, prepared.plan, prepared.first, display)
        summary = summarize(
            manifests,
            prepared.spec,
            skipped=prepared.plan.skipped,
            seconds=time.monotonic() - started,
            runner=beam_options.runner_name(self.checked.options),
        )
        self.directory.replace(metadata.SUMMARY_NAME, to_json(summary))
        check_failures(summary, self.config.execution.max_failure_rate, prepared.committed)
        return summary

    def _begin(
        self, existing: Spec | None, spec: Spec, committed: tuple[metadata.Manifest, ...]
    ) -> tuple[metadata.Manifest, ...]:
        """Prepares the data set for vectors of a spec; only now, because the module could be loaded.

        Returns:
          The manifests that the data set then has.
        """
        if self.config.execution.overwrite:
            return ownership.start_over(self.directory, spec)
        if existing is None:
            ownership.write_spec(self.directory, spec)
        else:
            check_same_space(self.directory.path, existing, spec)
        return committed


def _run_waves(runner: WaveRunner, plan: Plan, first: int, display: Display) -> list[metadata.Manifest]:
    manifests = []
    sizes = [wave.size_bytes() for wave in plan.waves]
    with Progress(sizes, display, [wave.unsized_files() for wave in plan.waves]) as progress:
        for number, wave in enumerate(plan.waves, 1):
            progress.begin_wave()
            manifest = runner.run(f"{first + number - 1:05d}", wave, progress)
            progress.end_wave(manifest.embedded, manifest.failed)
            manifests.append(manifest)
            if len(plan.waves) > 1:
                _log.info(
                    "wave %d of %d: %d embedded, %d failed in %.1f s",
                    number,
                    len(plan.waves),
                    manifest.embedded,
                    manifest.failed,
                    manifest.seconds,
                )
    return manifests
