import io
import os
import signal
import subprocess
import sys
import warnings

import pytest

from pipeline.core import errors
from pipeline.core.console import CommandParser, describe_os_error, print_line, run_command
from pipeline.core.errors import UsageError

INTERRUPTED = "error: interrupted; committed work is kept: start the same command again to continue\n"


def failing(error):
    def command(args):
        raise error

    return command


def test_a_command_gets_its_arguments_and_gives_its_exit_code():
    assert run_command(lambda args: len(args), ["a", "b"]) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("what to do"), 2),
        (errors.InputError("what to do"), 2),
        (errors.ModuleError("what to do"), 2),
        (errors.OutputError("what to do"), 2),
        (errors.TooManyFailures("what to do"), 3),
        (errors.IntegrityError("what to do"), 1),
        (errors.PipelineError("what to do"), 1),
    ],
)
def test_an_error_that_a_user_can_cause_is_one_line(capsys, error, code):
    assert run_command(failing(error), []) == code
    assert capsys.readouterr() == ("", "error: what to do\n")


def test_a_message_of_several_lines_becomes_one(capsys):
    assert run_command(failing(errors.PipelineError("one\ntwo\r\nthree")), []) == 1
    assert capsys.readouterr().err == "error: one two three\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/in/a"), "/in/a: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("gs://bucket/a: 503 try\n  later"), "gs://bucket/a: 503 try later"),
        (OSError(5, "/in/a is broken", "/in/a"), "/in/a is broken"),
    ],
)
def test_an_error_of_the_system_is_one_line_with_its_file(capsys, error, text):
    assert describe_os_error(error) == text
    assert run_command(failing(error), []) == 1
    assert capsys.readouterr().err == f"error: {text}\n"


def test_what_nobody_expected_is_shown_whole(capsys):
    assert run_command(failing(ZeroDivisionError("by zero")), []) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert "ZeroDivisionError: by zero" in error
    assert error.endswith("error: this was not expected; please report it with the lines above\n")


def test_an_interruption_from_within(capsys):
    assert run_command(failing(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == INTERRUPTED


def test_a_call_for_help_goes_its_way():
    with pytest.raises(SystemExit):
        run_command(failing(SystemExit(0)), [])


def test_a_parser_raises_what_it_does_not_understand():
    with pytest.raises(UsageError, match="unrecognized arguments: --nonsense"):
        CommandParser(prog="x").parse_args(["--nonsense"])


def test_the_handlers_of_signals_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during = []

    def command(args):
        during.append(signal.getsignal(signal.SIGTERM))
        return 0

    run_command(command, [])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert during != [before[1]]


@pytest.mark.parametrize(("encoding", "printed"), [("utf-8", "ü \\udcff"), ("ascii", "\\xfc \\udcff")])
def test_any_name_can_be_printed(encoding, printed, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    print_line("ü \udcff")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == f"{printed}\n"


PROCESS = """
import os, signal, sys, threading
from pipeline.core.console import run_command

def command(args):
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        print("cleaning up", flush=True)
        {cleanup}

def swallow(args):
    try:
        command(args)
    except KeyboardInterrupt:
        raise RuntimeError("what a library made of it") from None

sys.exit(run_command({command}, []))
"""


def start(command="command", cleanup="pass"):
    program = PROCESS.format(command=command, cleanup=cleanup)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["command", "swallow"])
def test_a_signal_ends_the_command_in_order(number, command):
    process = start(command)
    process.send_signal(number)
    assert process.communicate() == ("cleaning up\n", INTERRUPTED)
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number):
    process = start(cleanup="threading.Event().wait()")
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (130, "")


def test_whoever_reads_the_output_may_stop():
    program = """
import sys
from pipeline.core.console import run_command
def command(args):
    for _ in range(100_000):
        print("a line of output", flush=True)
    return 0
sys.exit(run_command(command, []))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_command_ignores_the_warnings_of_pillow():
    with warnings.catch_warnings():
        run_command(lambda args: 0, [])
        warnings.warn_explicit("metadata", UserWarning, "file.py", 1, module="PIL.TiffImagePlugin")


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}])
def test_file_names_are_utf_8_under_any_locale(tmp_path, locale):
    (tmp_path / "script.py").write_text(
        "import os, sys\n"
        "from pipeline.core.console import run_command\n"
        "def command(args):\n"
        "    print(ascii(args), ascii(os.listdir(args[0])), sys.getfilesystemencoding())\n"
        "    return 5\n"
        "sys.exit(run_command(command))\n"
    )
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "ü.jpg").write_bytes(b"")
    command = [sys.executable, tmp_path / "script.py", "é"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **locale}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, r"['\xe9'] ['\xfc.jpg'] utf-8" + "\n"), done.stderr
