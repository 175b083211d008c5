"""The main job, from Python: `run(config)`. Starting a job imports Beam and the other heavy packages."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.core.timing import timed

if TYPE_CHECKING:
    from pipeline.job.progress import Display
    from pipeline.job.summary import Summary


def run(config: RunConfig, display: Display | None = None) -> Summary:
    """Runs the whole job: writes a data set, or embeds the inputs that an existing data set lacks.

    Args:
      config: of the run.
      display: shows the progress; default: a log line every 30 s, at level INFO.

    Raises:
      UsageError: the request cannot be fulfilled; committed waves are kept.
      TooManyFailures: more records failed than allowed, or all; the vectors of the others are kept.
      IntegrityError: records were lost or counted twice.
      PipelineError: the pipeline failed; committed waves are kept.
    """
    if config.execution.dry_run:
        raise UsageError("dry_run writes nothing, so there is no summary; call pipeline.job.dry_run.preview(config)")
    if config.writes_template:
        raise UsageError(
            "template_location starts no job, so there is no summary; call pipeline.job.template.write_template(config)"
        )
    if config.execution.verbose:
        logging.getLogger("pipeline").setLevel(logging.DEBUG)
    if config.execution.quiet:
        logging.getLogger("pipeline").setLevel(logging.WARNING)
    started = time.monotonic()
    # Imported here, so that --help and usage errors do not wait for Beam.
    with timed("importing Beam"):
        from pipeline.job.execute import execute
        from pipeline.job.progress import LogDisplay
    return execute(config, started, display or LogDisplay())
