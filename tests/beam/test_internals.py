"""Checks that the installed version of Beam still has the insides that `pipeline.beam.internals` relies on."""

import inspect
import logging
import os
import threading

import apache_beam as beam
import pytest
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import api
from apache_beam.runners import runner as beam_runner
from apache_beam.runners.portability import fn_api_runner, portable_runner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils import retry

from pipeline.beam import internals
from pipeline.core.console import run_command
from pipeline.core.errors import PipelineError


def changed(thing):
    return f"Beam {beam.__version__} changed {thing}, which pipeline.beam.internals relies on"


def test_the_parser_knows_beams_options():
    flags = {flag for action in internals.make_option_parser()._actions for flag in action.option_strings}
    assert {"--runner", "--temp_location", "--direct_num_workers", "--experiments"} <= flags, changed(
        "PipelineOptions.__subclasses__"
    )


def test_options_that_beam_declares_in_another_way(monkeypatch):
    monkeypatch.setattr(PipelineOptions.__subclasses__()[0], "_add_argparse_args", None)
    with pytest.raises(ImportError, match=changed("PipelineOptions._add_argparse_args")):
        internals.make_option_parser()


def test_the_direct_runner_runs_in_this_process():
    with beam.Pipeline(runner=internals.make_direct_runner()) as pipeline:
        processes = pipeline | beam.Create([1, 2]) | beam.Map(lambda _: os.getpid())
        assert_that(processes, equal_to([os.getpid()] * 2), label=changed("FnApiRunner"))


def test_a_direct_runner_that_is_elsewhere(monkeypatch):
    monkeypatch.delattr(fn_api_runner, "FnApiRunner")
    with pytest.raises(ImportError, match=changed("FnApiRunner")):
        internals.make_direct_runner()


def test_runners_are_made_by_name(monkeypatch):
    assert type(internals.make_runner("PortableRunner")).__name__ == "PortableRunner", changed("create_runner")
    with pytest.raises(ValueError, match="NoSuchRunner"):
        internals.make_runner("NoSuchRunner")
    monkeypatch.delattr(beam_runner, "create_runner")
    with pytest.raises(ImportError, match=changed("create_runner")):
        internals.make_runner("PortableRunner")


def test_options_are_validated(monkeypatch):
    runner = internals.make_runner("DataflowRunner")
    errors = internals.option_errors(PipelineOptions(["--runner=DataflowRunner"]), runner)
    assert any("--project" in error or "project" in error for error in errors), changed("PipelineOptionsValidator")
    monkeypatch.delattr("apache_beam.options.pipeline_options_validator.PipelineOptionsValidator")
    with pytest.raises(ImportError, match=changed("PipelineOptionsValidator")):
        internals.option_errors(PipelineOptions([]), runner)


def test_runners_with_a_job_server(monkeypatch):
    for name, expected in {"PortableRunner": True, "FlinkRunner": True, "DataflowRunner": False}.items():
        assert internals.is_portable(internals.make_runner(name)) == expected, changed("PortableRunner")
    monkeypatch.delattr(portable_runner, "PortableRunner")
    with pytest.raises(ImportError, match=changed("PortableRunner")):
        internals.is_portable(None)


def test_a_job_server_is_asked_as_beam_asks(monkeypatch):
    assert "DescribePipelineOptionsRequest(" in inspect.getsource(portable_runner), changed("the question for options")
    monkeypatch.delattr(api.beam_job_api_pb2, "DescribePipelineOptionsRequest")
    with pytest.raises(ImportError, match=changed("DescribePipelineOptions")):
        internals.describe_job_options("localhost:1", 1)
    monkeypatch.delattr(api.beam_job_api_pb2, "PipelineOptionType")
    with pytest.raises(ImportError, match=changed("PipelineOptionType")):
        internals.add_job_options(internals.make_option_parser(), [])


def test_the_loggers_are_those_of_beam():
    names = (portable_runner._LOGGER.name, retry._LOGGER.name)
    for name, prefix in zip(names, internals.RAISED_ERRORS_LOGGERS, strict=True):
        assert name.startswith(prefix), changed("the name of a logger")
    source = inspect.getsource(portable_runner)
    assert "logging.log(" in source, changed("the logging of a job's messages")
    assert f"name='{internals.MESSAGES_THREAD}'" in source, changed("the thread that reads a job's messages")
    assert pipeline_options.__name__ == internals.OPTIONS_LOGGER, changed("the name of a logger")
    assert 'f"Unparseable argument: ' in inspect.getsource(pipeline_options), changed("the warning of an argument")


def test_what_a_remote_job_logs_of_its_failure_is_left_to_the_one_line(monkeypatch, capsys):
    def lose_connection():
        raise ConnectionResetError

    def command(args):
        PipelineOptions(["--number_of_execution_retries=3"]).get_all_options(
            retain_unknown_options=True, display_warnings=True
        )
        thread = threading.Thread(target=lose_connection, name=internals.MESSAGES_THREAD)
        thread.start()
        thread.join()
        module = compile(
            "import logging; logging.error('a stack of the job'); logging.warning('a warning of the job')",
            "portable_runner.py",
            "exec",
        )
        exec(module)
        raise PipelineError("the job failed")

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "filters", [])
    monkeypatch.setattr(logging.getLogger(internals.OPTIONS_LOGGER), "filters", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    internals.silence_raised_errors()
    assert run_command(command, []) == 1
    assert capsys.readouterr().err == "a warning of the job\nerror: the job failed\n"


class _FailFn(beam.DoFn):
    def process(self, element):
        raise ValueError("the reason")


def test_the_note_of_a_step_is_cut_off():
    with pytest.raises(Exception, match="the reason") as raised, beam.Pipeline(internals.make_direct_runner()) as root:
        root | beam.Impulse() | "Fail" >> beam.ParDo(_FailFn())
    text = str(raised.value)
    assert "[while running 'Fail" in text, changed("the note of a step")
    assert internals.without_step_note(text.splitlines()[-1]).endswith("the reason"), changed("the note of a step")


def test_errors_of_the_thread_that_asks_dataflow_are_collected(capsys):
    """Those of other threads are printed as before."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    thing = "DataflowRunner.poll_for_job_completion"
    assert callable(DataflowRunner.poll_for_job_completion), changed(thing)

    class LostResult:
        state = "RUNNING"

        def job_id(self):
            raise ConnectionError("no network")

    with internals.polling_errors() as errors:
        thread = threading.Thread(target=DataflowRunner.poll_for_job_completion, args=(None, LostResult(), None))
        thread.start()
        thread.join()
    assert [str(error) for error in errors] == ["no network"], changed(thing)
    assert capsys.readouterr().err == ""


def test_metrics_of_a_job_are_asked_for_each_time():
    from apache_beam.portability.api import beam_job_api_pb2
    from apache_beam.runners.portability.portable_runner import PipelineResult

    class Service:
        asked = 0

        def GetJobMetrics(self, request):
            self.asked += 1
            return beam_job_api_pb2.GetJobMetricsResponse()

    service = Service()
    result = PipelineResult(service, "job", iter(()), iter(()), None)
    for _ in range(3):
        internals.current_metrics(result)
    assert service.asked == 3
