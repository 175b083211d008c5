"""Jobs on Google Cloud Dataflow: where to see them, how they ended, and waiting for them."""

from __future__ import annotations

import logging
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from pipeline.beam import internals
from pipeline.core.errors import PipelineError

_log = logging.getLogger(__name__)

RUNNERS = ("DataflowRunner", "TestDataflowRunner")
"""Names of the runners of Dataflow."""

_ENDED_BY_OTHERS = {
    PipelineState.CANCELLED: "was cancelled by somebody else",
    PipelineState.DRAINED: "was drained by somebody else before its end",
    PipelineState.UPDATED: "was replaced by an updated job",
}


class LostJobError(PipelineError):
    """The state of a job cannot be found out any more; the job may go on."""


def console_address(result: PipelineResult, options: PipelineOptions) -> str | None:
    """Returns the address of a job in the console; None if the job is not on Dataflow, or has not been started."""
    if not getattr(result, "has_job", False):
        return None
    google = options.view_as(GoogleCloudOptions)
    return f"https://console.cloud.google.com/dataflow/jobs/{google.region}/{result.job_id()}?project={google.project}"


def ended_by_others(error: Exception) -> str | None:
    """Returns how somebody else ended a job, from the error that its runner raised; None if the job itself failed."""
    result: Any = getattr(error, "result", None)
    return _ENDED_BY_OTHERS.get(getattr(result, "state", None))


def wait(result: PipelineResult) -> Any:
    """Waits for a pipeline to finish, on any runner; returns the state that the runner returns, if any.

    Beam asks Dataflow for the state of a job again for some minutes if there is no answer, and then gives the job up,
    although it goes on. This function asks again until the job ends, unless the launcher may not ask.

    Raises:
      LostJobError: the launcher may not ask for the state of the job any more.
    """
    if not getattr(result, "has_job", True):
        return None  # the pipeline was written as a template
    while True:
        with internals.polling_errors() as errors:
            try:
                return result.wait_until_finish()
            except AssertionError:
                if not errors:
                    raise
        _check_allowed(errors[-1])
        _log.warning("the state of the job is unknown (%s); asking again", " ".join(str(errors[-1]).split()))


def _check_allowed(error: BaseException) -> None:
    from google.api_core.exceptions import Forbidden, Unauthorized

    if isinstance(error, Forbidden | Unauthorized):
        raise LostJobError(" ".join(str(error).split())) from error
