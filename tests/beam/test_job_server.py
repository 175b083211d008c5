import re
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from apache_beam.options.pipeline_options import PortableOptions

from pipeline.beam import job_server
from pipeline.beam.options import check_options, parse_beam_args
from pipeline.core.errors import UsageError
from tests.job_services import job_service


@pytest.fixture(scope="module")
def service():
    with job_service() as found:
        yield found


def portable(endpoint, *args):
    return ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--temp_location=/shared", *args]


def test_options_of_the_job_server_are_accepted(service):
    args = ["--number_of_execution_retries=3", "--reuse_object", "--files_to_stage=a", "--state_backend", "rocks"]
    options = parse_beam_args(portable(service.endpoint, *args))
    assert options.view_as(PortableOptions).job_endpoint == service.endpoint
    check_options(options)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (
            "--number_of_execution_retry=3",
            "unknown argument '--number_of_execution_retry=3'; did you mean --number_of_execution_retries?",
        ),
        ("--nothing_like_it=3", "unknown argument '--nothing_like_it=3'; see --help, and Beam's own options"),
        (
            "--number_of_execution_retries=many",
            "argument --number_of_execution_retries: invalid int value: 'many'; see Beam's documentation of this "
            "option",
        ),
    ],
)
def test_other_arguments_are_refused(service, arg, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parse_beam_args(portable(service.endpoint, arg))


@pytest.mark.parametrize("runner", ["DirectRunner", "DataflowRunner"])
def test_other_runners_ask_no_job_server(service, runner):
    before = service.asked
    args = [f"--runner={runner}", f"--job_endpoint={service.endpoint}", "--number_of_execution_retries=3"]
    with pytest.raises(UsageError, match="unknown argument '--number_of_execution_retries=3'"):
        parse_beam_args(args)
    assert service.asked == before


def unreachable(port, seconds):
    return (
        f"--job_endpoint=localhost:{port}: no job server answered within {seconds} s; expected the HOST:PORT of one "
        "that is running; start it (on this machine, `scripts/cluster.sh flink up` does), or wait longer with "
        "--job_server_timeout=SECONDS"
    )


@pytest.fixture
def port():
    """A port on which nothing answers; connections to it are accepted, as those to another service."""
    with socket.create_server(("localhost", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("check", [lambda args: check_options(parse_beam_args(args)), parse_beam_args])
def test_a_job_server_that_does_not_answer_is_named(port, check, monkeypatch):
    monkeypatch.setattr(job_server, "ANSWER_S", 1)
    args = (
        portable(f"localhost:{port}", "--number_of_execution_retries=3")
        if check is parse_beam_args
        else portable(f"localhost:{port}")
    )
    with pytest.raises(UsageError, match=f"^{re.escape(unreachable(port, 1))}$"):
        check(args)


def test_the_user_decides_how_long_to_wait(port, monkeypatch):
    monkeypatch.setattr(job_server, "ANSWER_S", 600)
    with pytest.raises(UsageError, match=f"^{re.escape(unreachable(port, 2))}$"):
        check_options(parse_beam_args(portable(f"localhost:{port}", "--job_server_timeout=2")))


def test_a_job_server_that_starts_in_time_is_waited_for(monkeypatch):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    options = parse_beam_args(portable(f"localhost:{port}", "--job_server_timeout=60"))
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(check_options, options)
        with job_service(port=port) as service:
            checked.result()
            assert service.asked == 1


def test_another_server_is_no_job_server():
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("localhost:0")
        server.start()
        try:
            text = (
                f"--job_endpoint=localhost:{port}: the server there is no job server of Beam (UNIMPLEMENTED: Method "
                "not found!); name the job server's HOST:PORT"
            )
            with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
                check_options(parse_beam_args(portable(f"localhost:{port}")))
        finally:
            server.stop(None)


def test_a_portable_runner_needs_an_endpoint():
    text = "--runner=PortableRunner needs --job_endpoint=HOST:PORT, the address of a job server"
    with pytest.raises(UsageError, match=f"^{text}$"):
        check_options(parse_beam_args(["--runner=PortableRunner", "--temp_location=/shared"]))
    check_options(parse_beam_args(portable("embed")))
    check_options(parse_beam_args(["--runner=FlinkRunner", "--temp_location=/shared"]))  # starts its job server itself
