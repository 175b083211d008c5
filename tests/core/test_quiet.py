import subprocess
import sys

import pytest

CODE = """
import sys
from pipeline.core.quiet import import_tensorflow, import_tensorflow_hub
print("before", file=sys.stderr)
import_tensorflow()
import_tensorflow()
assert "tensorflow_hub" not in sys.modules
assert import_tensorflow_hub() is import_tensorflow_hub() is sys.modules["tensorflow_hub"]
assert "tensorflow" in sys.modules
print("after", file=sys.stderr)
"""


@pytest.mark.slow
def test_tensorflow_and_its_hub_are_imported_without_their_chatter(pytestconfig):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True, cwd=pytestconfig.rootpath
    )
    assert (done.returncode, done.stderr) == (0, "before\nafter\n")


@pytest.mark.parametrize("line", ["real trouble", "E0000 00:00:00.0 an error", "Traceback (most recent call last):"])
def test_everything_else_is_passed_on(line, pytestconfig):
    code = (
        "import os, pipeline.core.quiet as quiet\n"
        "with quiet._without_chatter():\n"
        "    os.write(2, b'I0000 00:00:00.0 chatter\\n2026-01-01 00:00:00.0: I more of it\\n')\n"
        f"    os.write(2, {line.encode()!r} + b'\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert done.stderr == f"{line}\n"


def test_warnings_of_pillow_alone_are_ignored(pytestconfig):
    code = (
        "import warnings\n"
        "from pipeline.core.quiet import ignore_pillow_warnings\n"
        "ignore_pillow_warnings()\n"
        "for name in ('PIL.TiffImagePlugin', 'other'):\n"
        "    warnings.warn_explicit(f'a warning of {name}', UserWarning, 'file.py', 1, module=name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=pytestconfig.rootpath)
    assert (done.returncode, done.stderr) == (0, "file.py:1: UserWarning: a warning of other\n")
