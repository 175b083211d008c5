"""What the launcher makes of the states of a job, of its error messages and of a service that does not answer."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from google.cloud.dataflow import JobState

from pipeline.beam.worker_errors import WorkerError
from pipeline.core.errors import OutputError
from pipeline.dataset.metadata import read_manifests
from pipeline.run import main
from pipeline.testing import jpeg_bytes
from tests.dataflow.service import ENDPOINT, DataflowService, Moment, Play, PlayedJob, states
from tests.datasets import until
from tests.environments import REPOSITORY, clean_environment

pytestmark = pytest.mark.slow

REGION = "europe-west4"
ADVICE = "start again to go on from there"


@pytest.fixture
def arguments(gcs, tmp_path, tiny_module) -> Iterator[list[str]]:
    """Those of a run without a source distribution to build: the service runs nothing."""
    base = f"gs://bucket/{tmp_path.name}"
    gcs.write(f"{base}/in/a.jpg", jpeg_bytes())
    yield [
        "--runner=DataflowRunner",
        f"--dataflow_endpoint={ENDPOINT}",
        "--project=a-project",
        f"--region={REGION}",
        f"--temp_location={base}/temp",
        f"--input={base}/in",
        f"--output={base}/out",
        f"--module={tiny_module}",
        "--engine=tensorflow",
        "--sdk_container_image=an/image",
    ]
    gcs.delete()


@pytest.fixture
def errors_of(arguments, gcs, capsys, caplog):
    """Runs the command against a service; returns the exit code and the lines of stderr that name errors."""

    def run(*plays: Play, refusal: tuple[HTTPStatus, str] | None = None) -> tuple[int, str]:
        caplog.set_level(logging.INFO, "pipeline")
        with DataflowService(plays, refusal) as service:
            code = main(arguments)
        assert len(service.jobs) == (0 if refusal else 1)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert not [path for path in gcs.paths() if path.endswith("/lock.json")]
        return code, error.strip().splitlines()[-1]

    return run


def test_the_console_of_a_job_is_named(errors_of, caplog):
    errors_of(states("JOB_STATE_CANCELLED"))
    address = f"https://console.cloud.google.com/dataflow/jobs/{REGION}/2026-01-01_00_00_00-0?project=a-project"
    assert f"the job of wave 00000 is at {address}" in caplog.messages


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (
            states("JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_CANCELLED"),
            f"the job of wave 00000 was cancelled by somebody else; {ADVICE}",
        ),
        (
            states("JOB_STATE_RUNNING", "JOB_STATE_DRAINING", "JOB_STATE_DRAINED"),
            f"the job of wave 00000 was drained by somebody else before its end; {ADVICE}",
        ),
        (states("JOB_STATE_UPDATED"), f"the job of wave 00000 was replaced by an updated job; {ADVICE}"),
        (
            states("JOB_STATE_FAILED", errors=["The zone does not have enough resources."]),
            "the job of wave 00000 failed on DataflowRunner: The zone does not have enough resources.; "
            f"see the runner's logs, and {ADVICE}",
        ),
        (
            states(
                "JOB_STATE_FAILED", errors=["Traceback:\n  File x, line 1\nValueError: bad [while running 'Embed']"]
            ),
            f"the job of wave 00000 failed on DataflowRunner: ValueError: bad; see the runner's logs, and {ADVICE}",
        ),
    ],
    ids=["cancelled", "drained", "updated", "failed", "failed-in-python"],
)
def test_a_job_that_does_not_end_well_is_one_line(errors_of, play, error):
    assert errors_of(play) == (1, f"error: {error}")


def test_an_error_of_ours_on_a_worker_keeps_its_exit_code(errors_of):
    """The service reports it inside a stack trace, and then that a work item failed four times."""
    cause = WorkerError.carrying(OutputError("the bucket is full; make room"))
    trace = f"Traceback (most recent call last):\n  File x\npipeline.beam.worker_errors.WorkerError: {cause}"
    play = states("JOB_STATE_FAILED", errors=[trace, "Workflow failed. The work item was attempted 4 times."])
    assert errors_of(play) == (2, "error: the bucket is full; make room")


def test_a_job_that_the_service_refuses_is_one_line(errors_of):
    code, error = errors_of(refusal=(HTTPStatus.FORBIDDEN, "(a1): Dataflow API is disabled in a-project."))
    assert code == 1
    assert re.fullmatch(
        r"error: the job of wave 00000 failed on DataflowRunner: 403 POST .*Dataflow API is disabled in a-project\.; "
        rf"see the runner's logs, and {ADVICE}",
        error,
    )


def unanswered(*moments: Moment) -> Play:
    def play(_: PlayedJob) -> Iterator[Moment]:
        yield Moment()
        yield from moments
        yield Moment(JobState.JOB_STATE_CANCELLED)

    return play


def test_a_connection_that_is_lost_for_a_while(errors_of):
    """The launcher asks until it sees the end of the job."""
    lost = [Moment(status=None), Moment(status=HTTPStatus.SERVICE_UNAVAILABLE)]
    assert errors_of(unanswered(*lost))[1].endswith("was cancelled by somebody else; start again to go on from there")


def test_beam_gives_up_asking_and_the_launcher_does_not(errors_of, caplog):
    assert errors_of(unanswered(Moment(status=HTTPStatus.TOO_MANY_REQUESTS, reason="quota")))[1].endswith(
        "was cancelled by somebody else; start again to go on from there"
    )
    assert re.search(r"the state of the job is unknown \(429 GET .*: quota\); asking again", caplog.text)


def test_a_launcher_that_may_not_ask_any_more(errors_of):
    code, error = errors_of(unanswered(*[Moment(status=HTTPStatus.FORBIDDEN, reason="no permission")] * 3))
    assert code == 1
    assert re.fullmatch(
        r"error: the job of wave 00000 may go on, but its state is unknown \(403 GET .*: no permission\): cancel it; "
        rf"its wave will not count; {ADVICE}",
        error,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job(arguments, gcs, tmp_path, number):
    def play(_: PlayedJob) -> Iterator[Moment]:
        while True:
            yield Moment()

    command = [sys.executable, "-m", "pipeline.run", *arguments]
    with (
        DataflowService([play]) as service,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=clean_environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        until(
            lambda: (service.jobs and service.jobs[0].was_watched.is_set()) or process.poll() is not None, seconds=500
        )
        process.send_signal(number)
        _, error = process.communicate()
    assert process.returncode == 130, error
    assert service.jobs[0].was_cancelled.is_set()
    assert "Traceback" not in error
    assert error.strip().splitlines()[-2:] == [
        "interrupted: cancelling the job of wave 00000",
        "error: interrupted; committed work is kept: start the same command again to continue",
    ]
    base = f"gs://bucket/{tmp_path.name}"
    assert read_manifests(f"{base}/out") == ()
    assert f"{base}/out/lock.json" not in gcs.paths()
    assert not os.listdir(tmp_path)
