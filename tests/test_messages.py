"""docs/messages.md shows what the command prints today."""

import subprocess
import sys

import pytest

from tests.environments import REPOSITORY


@pytest.mark.slow
def test_the_page_has_the_outputs_of_today(tmp_path):
    made = tmp_path / "messages.md"
    script = REPOSITORY / "scripts/make_messages.py"
    done = subprocess.run([sys.executable, script, made], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (REPOSITORY / "docs/messages.md").read_text(), "run scripts/make_messages.py"
