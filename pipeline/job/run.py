"""The main job, from Python: `run(config)`. Beam and the other heavy packages are imported when a job starts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.core.timing import timed

if TYPE_CHECKING:
    from pipeline.job.summary import Summary


def run(config: RunConfig) -> Summary:
    """Runs the whole job and writes the data set, or the part that an existing one lacks.

    Raises:
      UsageError: the job cannot be done as asked; nothing was embedded.
      TooManyFailures: more records failed than allowed, or all; what was embedded is kept.
      IntegrityError: records were lost or counted twice.
      PipelineError: the pipeline failed; the waves that were committed before are kept.
    """
    if config.execution.dry_run:
        raise UsageError("dry_run writes nothing, so there is no summary; call pipeline.job.dry_run.preview(config)")
    if config.execution.verbose:
        logging.getLogger("pipeline").setLevel(logging.DEBUG)
    started = time.monotonic()
    # Imported here, not above: --help and a mistyped flag should not have to wait for Beam.
    with timed("importing Beam"):
        from pipeline.job.execute import execute
    return execute(config, started)
