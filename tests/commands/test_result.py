import io
import sys

import pytest

from pipeline.commands import run as command
from pipeline.commands.result import describe_result, example_keys
from pipeline.core.errors import TooManyFailures
from pipeline.job.summary import Summary
from tests.datasets import add_wave, make_batch, make_failure

SUMMARY = Summary(
    records=132,
    embedded=119,
    failed=13,
    skipped=0,
    failures_by_reason={"empty": 1, "not_an_image": 12},
    seconds=6.0,
    images_per_second=119 / 6,
    waves=1,
    module="a/module",
    module_sha256="0123456789abcdef" * 4,
    dimension=1280,
    engine="openvino",
    precision="float32",
    runner="DirectRunner",
    versions={},
    damaged_but_embedded=2,
)
HEADLINE = "119 of 132 records embedded in 6.0 s (20 images/s), 1280 values each"
TABLE = """\
failed     1 empty         such as a/b.jpg
          12 not_an_image
damaged   2 embedded although damaged: see my out/damaged
module    a/module (0123456789ab), engine openvino
data set  my out
view      python -m pipeline.report 'my out'
verify    python -m pipeline.verify 'my out'
retry     the same command with --retry_failed"""


@pytest.fixture(autouse=True)
def python_on_the_path(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: sys.executable)


def test_the_table_is_aligned():
    assert str(describe_result(SUMMARY, "my out", {"empty": "a/b.jpg"})) == f"{HEADLINE}\n{TABLE}"


def test_a_terminal_shows_the_same_text_in_a_frame(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    describe_result(SUMMARY, "my out", {"empty": "a/b.jpg"}).print()
    shown = terminal.getvalue()
    assert "\x1b[" in shown
    for line in (HEADLINE, " 1 empty         such as a/b.jpg", "python -m pipeline.report 'my out'"):
        assert line in shown


def test_another_python_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert f"view      {tmp_path}/.venv/bin/python -m pipeline.report out\n" in str(describe_result(SUMMARY, "out", {}))
    monkeypatch.chdir(tmp_path)
    assert "view      .venv/bin/python -m pipeline.report out\n" in str(describe_result(SUMMARY, "out", {}))


def test_examples_are_of_this_run_and_obeyed_by_no_terminal(tmp_path):
    failures = [make_failure("old.jpg", reason="empty")]
    add_wave(tmp_path, "00000", make_batch({"a": [1, 2, 3]}, failures))
    failures = [make_failure("\x1b[31mred\n.jpg", reason="empty"), make_failure("later.jpg", reason="empty")]
    add_wave(tmp_path, "00001", make_batch({}, failures))
    assert example_keys(str(tmp_path), SUMMARY) == {"empty": "\\x1b[31mred\\n.jpg"}


def test_a_run_with_too_many_failures_shows_its_table_too(monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise TooManyFailures("too many")

    monkeypatch.setattr(command, "run", fail)
    monkeypatch.setattr("pipeline.job.summary.read_summary", lambda output: SUMMARY)
    flags = ["--input=a", "--module=b", f"--output={tmp_path}"]
    assert command.main(flags) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{HEADLINE}\nfailed ")
    assert shown.err == "error: too many\n"
