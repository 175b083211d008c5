import builtins
import dataclasses
import errno
import json
import os
import pickle

import apache_beam as beam
import pytest
from apache_beam.utils.shared import Shared

import pipeline
from pipeline.beam.options import make_runner, parse_beam_args
from pipeline.beam.worker_errors import WorkerError, carry_cause, carry_causes, cause_of
from pipeline.core import errors
from pipeline.core.config import RunConfig
from pipeline.core.console import run_command
from pipeline.core.errors import ImageError, InputError, ModuleError, PipelineError, UsageError
from pipeline.embedding.embedder import Embedder
from pipeline.engines.conversion import OpenVINOError
from pipeline.hub.cache import CacheError
from pipeline.job import execute
from tests.datasets import make_photos

THREADS = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/a")
OURS = [
    PipelineError("what to do"),
    UsageError("what to do"),
    InputError("what to do"),
    ModuleError("what to do"),
    errors.OutputError("what to do"),
    errors.TooManyFailures("what to do"),
    errors.IntegrityError("what to do"),
    ImageError("truncated", "what to do"),
    CacheError("what to do"),
    OpenVINOError("what to do"),
]


def raised_by_worker(error):
    """The exception that leaves a DoFn that raises `error`."""

    @carry_cause
    def fail():
        raise error

    with pytest.raises(WorkerError) as raised:
        fail()
    return raised.value


def same(cause, error):
    return (type(cause), cause.args, vars(cause)) == (type(error), error.args, vars(error))


def test_every_class_of_ours_is_tried():
    assert {type(error) for error in OURS} >= {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PipelineError)
    }


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_cause_survives_as_an_exception_a_pickle_and_a_text(error):
    raised = raised_by_worker(error)
    copied = pickle.loads(pickle.dumps(raised))
    assert (type(copied), str(copied)) == (WorkerError, str(raised))
    for found in (raised, copied, RuntimeError(f"Traceback:\n  ...\nWorkerError: {raised} [while running 'Embed']")):
        assert same(cause_of(found), error)
    assert raised_by_worker(raised) is raised


@pytest.mark.parametrize("kind", [OSError, PermissionError, BlockingIOError, builtins.TimeoutError])
def test_an_error_of_the_system_becomes_one_line_with_its_file(kind):
    cause = cause_of(RuntimeError(str(raised_by_worker(kind(errno.ENOSPC, "No space left on device", "/out/a")))))
    assert type(cause) is PipelineError
    assert str(cause) == "/out/a: No space left on device"
    assert (cause.__cause__.errno, cause.__cause__.filename) == (errno.ENOSPC, "/out/a")


def test_an_error_of_a_store_has_no_number():
    cause = cause_of(raised_by_worker(OSError("gs://b/a: 503 try\n later")))
    assert str(cause) == "gs://b/a: 503 try later"
    assert cause.__cause__.errno is None


TEXT = str(raised_by_worker(ModuleError("a message\nof two lines, with \\ and 'ü' \udcff")))
TRACEBACK = f'Traceback (most recent call last):\n  File "a.py", line 1, in f\npipeline.WorkerError: {TEXT}\n'


@pytest.mark.parametrize(
    "text",
    [
        TRACEBACK,
        TRACEBACK.replace("\n", "\\n"),
        json.dumps(TRACEBACK),
        repr(TRACEBACK),
        "java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from SDK harness for "
        f"instruction 4: {TRACEBACK}\n\tat org.apache.beam.runners.flink.Run(Run.java:12)\nCaused by: "
        f"java.lang.RuntimeException: {TRACEBACK}\n\t... 12 more",
    ],
)
def test_what_runners_make_of_a_text(text):
    cause = cause_of(RuntimeError(text))
    assert type(cause) is ModuleError
    assert str(cause) == "a message\nof two lines, with \\ and 'ü' \udcff"


def test_the_innermost_of_a_chain_counts():
    outer = RuntimeError(str(raised_by_worker(ModuleError("second"))))
    outer.__cause__ = raised_by_worker(InputError("first"))
    assert same(cause_of(outer), InputError("first"))
    assert cause_of(ValueError("no cause")) is None


@pytest.mark.parametrize("error", [ModuleError("what to do"), ImageError("truncated", "what to do"), FULL])
def test_a_cause_from_another_host_names_it(error, monkeypatch):
    with monkeypatch.context() as worker:
        worker.setattr("socket.gethostname", lambda: "worker-7")
        text = str(raised_by_worker(error))
    message = "/out/a: No space left on device" if error is FULL else "what to do"
    assert str(cause_of(RuntimeError(text))) == f"{message} (worker worker-7)"


class _ElsewhereError(ModuleError):
    """Stands for one that only a worker has imported."""

    def __init__(self, text, number):
        super().__init__(text)
        self.number = number


def test_a_class_that_only_the_worker_knows():
    text = str(raised_by_worker(ModuleError("what to do")))
    assert same(cause_of(RuntimeError(text)), ModuleError("what to do"))
    odd = cause_of(raised_by_worker(_ElsewhereError("what to do", 3)))
    assert same(odd, PipelineError("what to do"))

    hidden = type("HiddenError", (InputError,), {})
    raised = raised_by_worker(hidden("what to do"))
    hidden.__name__ = "OtherError"
    assert same(cause_of(raised), InputError("what to do"))


@pytest.mark.parametrize("cut", [5, 40])
def test_a_marker_that_was_cut_or_changed_is_no_cause(cut):
    assert cause_of(RuntimeError(TEXT[:-cut])) is None
    assert cause_of(RuntimeError(TEXT[:-cut] + ".")) is None


def test_other_exceptions_and_values_pass():
    @carry_causes
    class Fn(beam.DoFn):
        def setup(self):
            raise ZeroDivisionError

        def process(self, element):
            yield element

    with pytest.raises(ZeroDivisionError):
        Fn().setup()
    assert list(Fn().process(1)) == [1]


@pytest.fixture(scope="module")
def prepared(tiny_module, tmp_path_factory):
    """The module, loaded once for all runs of this file."""
    directory = tmp_path_factory.mktemp("prepared")
    make_photos(directory / "photos", 2)
    config = make_config(directory, tiny_module)
    checked = execute.check_run(config)
    return execute.load_module(checked.embedder, checked.options, certified=True)


def make_config(directory, module, args=()):
    config = RunConfig.from_flags(
        input=str(directory / "photos"), output=str(directory / "out"), module=str(module), engine="tensorflow"
    )
    return dataclasses.replace(config, beam_args=tuple(args))


PLACES = {
    "parts": "pipeline.beam.read.read_plan",
    "read": "pipeline.beam.read.read_part",
    "load": "pipeline.embedding.embedder.Embedder.load",
    "embed": "pipeline.beam.embed.BatchesInFlight",
    "write": "pipeline.beam.write.BundleWriter",
    "commit": "pipeline.beam.write.commit_wave",
}


@pytest.mark.parametrize("place", PLACES)
def test_each_class_in_each_place_of_the_pipeline(tmp_path, tiny_module, prepared, monkeypatch, place, capsys):
    make_photos(tmp_path / "photos", 2)
    config = make_config(tmp_path, tiny_module, THREADS)
    shared = Shared()
    if place != "load":
        shared.acquire(lambda: Embedder.load(prepared.spec))
    monkeypatch.setattr(execute, "load_module", lambda *_, **__: dataclasses.replace(prepared, shared=shared))
    for error in (*OURS, FULL):

        def fail(*args, error=error, **keywords):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(PLACES[place], fail)
            code = run_command(lambda args: pipeline.run(config) and 0, [])
        text = "/out/a: No space left on device" if error is FULL else "what to do"
        if not isinstance(error, UsageError):
            room = "make room there and " if error is FULL else ""
            text = f"wave 00000 failed and was not committed: {text}; {room}start again to go on from there"
        assert capsys.readouterr().err.endswith(f"\nerror: {text}\n"), error
        assert code == getattr(error, "exit_code", 1), error
    assert not list((tmp_path / "out").rglob("manifests/*.json"))


@carry_causes
class _FailFn(beam.DoFn):
    def __init__(self, name):
        self._name = name

    def process(self, element):
        raise {"cache": CacheError("what to do"), "full": FULL}[self._name]
        yield


@pytest.mark.parametrize(("name", "expected"), [("cache", CacheError("what to do")), ("full", None)])
def test_a_cause_in_another_process(name, expected):
    options = parse_beam_args(PROCESSES)
    root = beam.Pipeline(runner=make_runner(options), options=options)
    root | beam.Impulse() | beam.ParDo(_FailFn(name))
    with pytest.raises(Exception, match="pipeline-cause") as raised:
        root.run()
    cause = cause_of(raised.value)
    if expected:
        assert same(cause, expected)
    else:
        assert str(cause) == "/out/a: No space left on device"


def test_a_module_that_another_process_cannot_load(tmp_path, tiny_module, prepared, monkeypatch, capsys):
    make_photos(tmp_path / "photos", 2)
    function = dataclasses.replace(prepared.spec.source, path=str(tmp_path / "gone"))
    spec = dataclasses.replace(prepared.spec, source=function)
    monkeypatch.setattr(execute, "load_module", lambda *_, **__: dataclasses.replace(prepared, spec=spec))
    config = make_config(tmp_path, tiny_module, PROCESSES)
    code = run_command(lambda args: pipeline.run(config) and 0, [])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert str(tmp_path / "gone") in error
    assert "pipeline-cause" not in error
    assert code == 2
