"""One run, which locks its data set: checks, plan, module, waves, summary."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.beam import options as beam_options
from pipeline.core.config import RunConfig
from pipeline.core.console import describe_os_error
from pipeline.core.errors import OutputError, PipelineError
from pipeline.core.json import to_json
from pipeline.core.timing import timed
from pipeline.dataset import metadata, ownership
from pipeline.dataset.plan import Wave
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.job.checks import CheckedRun, check_output, check_run
from pipeline.job.prepare import bring_to_workers, load_module
from pipeline.job.summary import Summary, check_failures, summarize
from pipeline.job.waves import WaveRunner, plan_run
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock, LockToken

_log = logging.getLogger(__name__)


def execute(config: RunConfig, started: float) -> Summary:
    """Runs the whole job; see `pipeline.job.run.run`.

    Args:
      config: of the run.
      started: when the run started, by `time.monotonic`.
    """
    checked = check_run(config)
    output = checked.output
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(DatasetLock(output, steal=config.execution.steal_lock))
        except OSError as error:
            raise OutputError(f"--output={output} cannot be written: {describe_os_error(error)}") from error
        try:
            return _LockedRun(config, checked, lock.token).run(started)
        except OSError as error:
            raise PipelineError(
                f"the run to --output={output} stopped: {describe_os_error(error)}; what was committed is kept, start "
                "again to go on from there"
            ) from error


@dataclass(frozen=True)
class _LockedRun:
    config: RunConfig
    checked: CheckedRun
    lock: LockToken

    def run(self, started: float) -> Summary:
        checked, execution, output = self.checked, self.config.execution, self.checked.output
        existing = check_output(self.config, output, checked.embedder)
        plan = plan_run(self.config, checked.options, output, checked.files)
        manifests: list[metadata.Manifest] = []
        if existing is not None and not plan.waves:
            ownership.remove_uncommitted(output)
            spec = existing
        else:
            with timed("loading the module"):
                embed = bring_to_workers(load_module(checked.embedder, checked.options), checked.options)
            assert embed.dataset_spec is not None
            spec = embed.dataset_spec
            if execution.overwrite:  # only now: the module could be loaded
                ownership.remove(output)
            _begin(output, existing, spec)
            manifests = _run_waves(WaveRunner(self.config, checked.options, output, embed, self.lock), plan.waves)
        summary = summarize(
            manifests,
            spec,
            skipped=plan.skipped,
            seconds=time.monotonic() - started,
            runner=beam_options.runner_name(checked.options),
        )
        filesystem.write_atomically(filesystem.join(output, metadata.SUMMARY_NAME), to_json(summary))
        check_failures(summary, execution.max_failure_rate)
        return summary


def _begin(output: str, existing: Spec | None, spec: Spec) -> None:
    ownership.remove_uncommitted(output)
    if existing is None:
        metadata.write_spec(output, spec)
    else:
        check_same_space(output, existing, spec)


def _run_waves(runner: WaveRunner, waves: Sequence[Wave]) -> list[metadata.Manifest]:
    manifests = []
    for number, wave in enumerate(waves, 1):
        manifest = runner.run(wave)
        manifests.append(manifest)
        if len(waves) > 1:
            _log.info(
                "wave %d of %d: %d embedded, %d failed in %.1f s",
                number,
                len(waves),
                manifest.embedded,
                manifest.failed,
                manifest.seconds,
            )
    return manifests
