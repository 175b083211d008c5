"""Writes the job of one wave as a template, which Dataflow starts after this process has ended."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pipeline.beam import dataflow
from pipeline.beam import options as beam_options
from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.job.execute import locked_run


@dataclass(frozen=True)
class WrittenTemplate:
    """The outcome of `write_template`.

    Attributes:
      location: of the template.
      wave: name of the wave that its job commits; None if there was nothing to do, and no template was written.
      later_waves: number of waves that are left for later jobs.
      skipped: records that earlier runs had done.
    """

    location: str
    wave: str | None
    later_waves: int
    skipped: int

    def __str__(self) -> str:
        if self.wave is None:
            return f"nothing new: all {self.skipped} records were done by earlier runs; no job was written"
        text = f"the job of wave {self.wave} was written to {self.location}; the job commits the wave at its end"
        if self.later_waves:
            text += f". Then start {self.later_waves} more jobs, one after the other, for the rest"
        return text


def write_template(config: RunConfig) -> WrittenTemplate:
    """Writes the job of the next wave to `--template_location`, and leaves the lock of the data set to the job.

    The job gives the lock back when it has committed its wave. It can be started once: later starts of the same
    template fail and change nothing. There is no `summary.json`, and `--max_failure_rate` does not apply.

    Raises:
      UsageError: the request cannot be fulfilled.
      PipelineError: the template cannot be written.
    """
    with locked_run(config) as run:
        location = beam_options.template_location(run.checked.options)
        runner = beam_options.runner_name(run.checked.options)
        if location is None or runner not in dataflow.RUNNERS:
            raise UsageError(f"--runner={runner} writes no template; expected DataflowRunner and --template_location")
        prepared = run.prepare()
        skipped = prepared.plan.skipped
        if prepared.waves is None or not prepared.plan.waves:
            return WrittenTemplate(location, None, 0, skipped)
        name = f"{prepared.first:05d}"
        directory = dataclasses.replace(run.directory, is_handed_over=True)
        dataclasses.replace(prepared.waves, directory=directory).submit(name, prepared.plan.waves[0])
        run.lock.hand_over(f"the Dataflow job of wave {name}")
        return WrittenTemplate(location, name, len(prepared.plan.waves) - 1, skipped)
