"""Runs on a job server: Beam's own, on a port of this machine; its workers are threads of this process."""

import json
import logging
import re
import socket
import threading

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipeline.beam import internals, job_server, write
from pipeline.core.errors import ModuleError
from pipeline.dataset.metadata import read_manifests
from pipeline.run import main
from tests.datasets import complete, read_rows
from tests.job_services import job_service

FAILED = "the job of wave 00000 failed on PortableRunner: "
ADVICE = "; see the runner's logs, and start again to go on from there"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Undoes what a command does to the logs and threads of its process."""
    for name in (*internals.RAISED_ERRORS_LOGGERS, None):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", logger.level)
        monkeypatch.setattr(logger, "filters", list(logger.filters))
    options = logging.getLogger(internals.OPTIONS_LOGGER)
    monkeypatch.setattr(options, "filters", list(options.filters))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.fixture
def service():
    with job_service() as found:
        yield found


@pytest.fixture
def run(photos, out, tiny_module, tmp_path, capsys):
    """Runs the command; returns its exit code and the last line of stderr, which is the only one of an error.

    Workers are in this process, and print the traceback of a failed bundle, as every worker does.
    """

    def call(endpoint, *args):
        code = main(
            [
                "--runner=PortableRunner",
                f"--job_endpoint={endpoint}",
                "--environment_type=LOOPBACK",
                f"--temp_location={tmp_path}/temp",
                f"--input={photos}",
                f"--module={tiny_module}",
                f"--output={out}",
                "--engine=tensorflow",
                *args,
            ]
        )
        error = capsys.readouterr().err
        assert "please report" not in error
        assert error.count("error: ") == min(code, 1)
        return code, error.splitlines()[-1] if error else ""

    return call


def test_every_wave_is_a_job_of_the_job_server(run, service, photos, out):
    size_bytes = max(path.stat().st_size for path in photos.iterdir())
    code, _ = run(service.endpoint, "--number_of_execution_retries=3", f"--wave_bytes={3 * size_bytes}")
    assert code == 0
    assert len(service.jobs) == 2
    assert {options["number_of_execution_retries"] for options in service.submitted} == {"3"}
    assert len(read_rows(out)) == 5
    assert json.loads((out / "summary.json").read_bytes())["runner"] == "PortableRunner"
    assert complete(out)


def test_a_job_may_take_longer_than_an_answer(run, service, out, monkeypatch):
    """Beam would end its wait for the job at the timeout."""
    commit = write.commit_wave
    is_over = threading.Event()

    def commit_late(*args, **keywords):
        is_over.wait(2)
        return commit(*args, **keywords)

    monkeypatch.setattr(write, "commit_wave", commit_late)
    assert run(service.endpoint, "--job_server_timeout=1")[0] == 0
    assert complete(out)


def test_a_job_server_that_does_not_answer_ends_the_run_before_anything_is_read(run, out, monkeypatch):
    monkeypatch.setattr(job_server, "ANSWER_S", 1)
    with socket.create_server(("localhost", 0)) as server:
        endpoint = f"localhost:{server.getsockname()[1]}"
        code, error = run(endpoint, "--input=/no/such/place")
    assert (code, error.partition("; ")[0]) == (
        2,
        f"error: --job_endpoint={endpoint}: no job server answered within 1 s",
    )
    assert not out.exists()


def test_a_job_server_that_is_gone_after_the_first_wave(run, service, out, monkeypatch):
    monkeypatch.setattr(job_server, "ANSWER_S", 1)
    ask = internals.describe_job_options

    def ask_and_stop(*args):
        if read_manifests(str(out)):
            service.stop(None)
        return ask(*args)

    monkeypatch.setattr(internals, "describe_job_options", ask_and_stop)
    code, error = run(service.endpoint, "--wave_bytes=1")
    assert code == 2
    assert error.startswith(f"error: --job_endpoint={service.endpoint}: no job server answered within 1 s; ")
    assert [manifest.wave for manifest in read_manifests(str(out))] == ["00000"]
    assert not (out / "lock.json").exists()


def test_a_cause_keeps_its_message_and_exit_code(run, service, monkeypatch):
    def fail(*args, **keywords):
        raise ModuleError("what to do")

    monkeypatch.setattr(write, "commit_wave", fail)
    assert run(service.endpoint) == (2, "error: what to do")


def test_a_failure_without_a_cause_is_one_line(run, service, out, monkeypatch):
    monkeypatch.setattr(write, "commit_wave", lambda *args, **keywords: 1 / 0)
    assert run(service.endpoint) == (1, f"error: {FAILED}ZeroDivisionError: division by zero{ADVICE}")
    assert read_manifests(str(out)) == ()
    monkeypatch.undo()
    assert run(service.endpoint)[0] == 0
    assert complete(out)


def test_a_job_that_is_refused_is_one_line(run, service, monkeypatch):
    def refuse(*args):
        raise ValueError("a transform that\nit does not know")

    monkeypatch.setattr(service, "create_beam_job", refuse)
    text = "UNKNOWN: Exception calling application: a transform that it does not know"
    assert run(service.endpoint) == (1, f"error: {FAILED}{text}{ADVICE}")


def test_a_job_that_someone_cancels_is_one_line(run, service, out, monkeypatch):
    is_cancelled = threading.Event()

    def cancel_and_wait(*args, **keywords):
        with grpc.insecure_channel(service.endpoint) as channel:
            stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
            stub.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=service.jobs[0]))
        is_cancelled.wait()

    monkeypatch.setattr(write, "commit_wave", cancel_and_wait)
    code, error = run(service.endpoint)
    is_cancelled.set()
    assert code == 1
    assert re.match(rf"error: {FAILED}Pipeline \S+ failed in state CANCELLED: unknown error{ADVICE}", error)
    assert read_manifests(str(out)) == ()


def test_a_connection_that_is_lost_in_mid_job_is_one_line(run, service, out, monkeypatch):
    is_over = threading.Event()

    def stop_and_wait(*args, **keywords):
        service.stop(None)
        is_over.wait()

    monkeypatch.setattr(write, "commit_wave", stop_and_wait)
    code, error = run(service.endpoint)
    is_over.set()
    assert code == 1
    assert re.fullmatch(
        r"error: the connection to the job server of PortableRunner was lost \(\w+: .*\); the job of wave 00000 may go "
        r"on there, but its wave will not count: stop it, and start again to go on from there",
        error,
    )
    assert read_manifests(str(out)) == ()
    assert not (out / "lock.json").exists()
