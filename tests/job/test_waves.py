import errno
import inspect
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

import pipeline
from pipeline.beam import write
from pipeline.core.config import RunConfig
from pipeline.core.errors import IntegrityError, OutputError, PipelineError
from pipeline.dataset import metadata
from pipeline.dataset.metadata import read_manifests
from pipeline.job import waves as job_waves
from pipeline.run import main
from pipeline.storage import filesystem
from pipeline.storage.lock import DatasetLock
from tests.datasets import complete, contents, embed, read_rows, read_vectors


def test_a_wave_without_any_record(tmp_path, photos, out, tiny_module, caplog):
    embed(photos, out, tiny_module)
    (photos / "empty.tfrecord").write_bytes(b"")
    caplog.clear()
    assert embed(photos, out, tiny_module).records == 0
    assert not [message for message in caplog.messages if "is not checked" in message]
    assert embed(photos, out, tiny_module).waves == 0


def test_a_run_that_was_robbed_does_not_commit(photos, out, tiny_module, monkeypatch):
    write_plan = job_waves.write_plan

    def rob(directory, name, wave):
        if name == "00002":
            with DatasetLock(directory.path, steal=True):
                pass
        return write_plan(directory, name, wave)

    monkeypatch.setattr(job_waves, "write_plan", rob)
    with pytest.raises(
        OutputError, match=r"was taken over and released while this run went on; nothing more is committed$"
    ):
        embed(photos, out, tiny_module, wave_bytes="1")
    assert [manifest.wave for manifest in read_manifests(str(out))] == ["00000", "00001"]
    monkeypatch.undo()
    assert embed(photos, out, tiny_module).records == 3
    assert complete(out)


def test_records_that_were_lost_end_the_run_and_do_not_count(photos, out, tiny_module, monkeypatch):
    """The message names what was counted; nothing of the wave counts."""
    commit = write.commit_wave

    def lose(*args, records_read):
        return commit(*args, records_read=records_read + 1)

    monkeypatch.setattr(write, "commit_wave", lose)
    with pytest.raises(IntegrityError, match="wave 00000: 6 records were read, but 5 embedded and 0 failed"):
        embed(photos, out, tiny_module)
    assert read_manifests(str(out)) == ()
    assert sorted(contents(out)) == ["spec.json"]
    monkeypatch.undo()
    assert embed(photos, out, tiny_module).embedded == 5
    assert complete(out)


def test_a_full_disk_in_the_middle_is_one_line_and_resumable(photos, out, tiny_module, monkeypatch, capsys):
    create = filesystem.create

    def full(path):
        if "/00002/embeddings" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return create(path)

    monkeypatch.setattr(filesystem, "create", full)
    args = [
        f"--input={photos}",
        f"--module={tiny_module}",
        f"--output={out}",
        "--wave_bytes=1",
        "--engine=tensorflow",
    ]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: wave 00002 failed and was not committed: ")
    assert "No space left on device" in error.splitlines()[-1]
    assert error.splitlines()[-1].endswith("start again to go on from there")
    assert "Traceback" not in error
    monkeypatch.undo()
    assert main(args) == 0
    assert len(read_rows(out)) == 5
    assert complete(out)


def test_a_pipeline_that_fails_for_a_reason_of_its_own_shows_it(photos, out, tiny_module, monkeypatch):
    monkeypatch.setattr("pipeline.beam.write.commit_wave", lambda *args, **options: 1 / 0)
    with pytest.raises(Exception, match="division by zero") as raised:
        pipeline.run(
            RunConfig.from_flags(input=str(photos), module=str(tiny_module), output=str(out), engine="tensorflow")
        )
    assert not isinstance(raised.value, PipelineError)
    assert metadata.read_manifests(str(out)) == ()


class TextRunner(FnApiRunner):
    """A portable runner whose job fails with a text only."""

    text = ""

    def run_pipeline(self, pipeline, options):
        raise RuntimeError(self.text)


JAVA = (
    "java.lang.RuntimeException: Error received from SDK harness for instruction 2: Traceback (most recent call "
    "last):\n"
    '  File "worker.py", line 12, in process\n    raise MemoryError("too many pixels")\n'
    "MemoryError: too many pixels [while running 'EmbedImages/Embed']\n\n\tat org.apache.beam.Run(Run.java:12)\n"
    "\t... 12 more\n"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (JAVA, "MemoryError: too many pixels"),
        (JAVA.replace("\n", "\\n").replace("\t", "\\t"), "MemoryError: too many pixels"),
        ("Pipeline failed.", "Pipeline failed."),
        ("The job was cancelled\n\n", "The job was cancelled"),
        ("", "no reason given"),
        ("x" * 600, "x" * 500 + "..."),
    ],
)
def test_a_job_that_fails_elsewhere_without_a_cause_is_one_line(
    photos, out, tiny_module, tmp_path, monkeypatch, capsys, text, reason
):
    monkeypatch.setattr(TextRunner, "text", text)
    runner = f"{__name__}.{TextRunner.__name__}"
    args = {"input": photos, "module": tiny_module, "output": out, "temp_location": tmp_path / "temp", "runner": runner}
    assert main([f"--{name}={value}" for name, value in args.items()] + ["--engine=tensorflow"]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == (
        f"error: the job of wave 00000 failed on {runner}: {reason}; see the runner's logs, and start again to go on "
        "from there"
    )
    assert "Traceback" not in error
    assert read_manifests(str(out)) == ()


class StateResult:
    def __init__(self, state):
        self.wait_until_finish = lambda: state


class StateRunner(FnApiRunner):
    """A runner that returns the state of a failed job, and raises nothing."""

    state = ""

    def run_pipeline(self, pipeline, options):
        return StateResult(self.state)


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "DRAINED", "UNKNOWN"])
def test_a_state_without_success_is_a_failure(photos, out, tiny_module, tmp_path, monkeypatch, state):
    monkeypatch.setattr(StateRunner, "state", state)
    runner = f"{__name__}.{StateRunner.__name__}"
    with pytest.raises(PipelineError, match=rf"^the job of wave 00000 failed on {runner}: it ended in state {state};"):
        embed(photos, out, tiny_module, runner=runner, temp_location=str(tmp_path / "temp"))
    assert read_manifests(str(out)) == ()


def insides_of_beam():
    """Every function and class of Beam's modules, and every function of those classes."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "apache_beam" or module is None:
            continue
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) or inspect.isclass(value):
                found[module_name, name] = value
            if inspect.isclass(value) and value.__module__ == module_name:
                found |= {
                    (module_name, name, method): function
                    for method, function in vars(value).items()
                    if inspect.isfunction(function)
                }
    return found


def test_two_runs_at_a_time_change_neither_beam_nor_each_other(photos, tmp_path, tiny_module):
    embed(photos, tmp_path / "alone", tiny_module)
    expected = read_vectors(tmp_path / "alone")
    before = insides_of_beam()
    outputs = [tmp_path / "first", tmp_path / "second"]
    overlapping = threading.Barrier(len(outputs), timeout=60)

    def run(output):
        overlapping.wait()
        return embed(photos, output, tiny_module, wave_bytes="1" if output == outputs[0] else "1GiB")

    with ThreadPoolExecutor(len(outputs)) as pool:
        summaries = list(pool.map(run, outputs))
    assert [(summary.embedded, summary.waves) for summary in summaries] == [(5, 5), (5, 1)]
    for output in outputs:
        assert read_vectors(output) == expected
        assert complete(output)
    after = insides_of_beam()
    assert {name: after.get(name) for name in before} == before
