"""docs/tutorial.md shows what its commands print today."""

import re
import subprocess
import sys

import pytest

from tests.environments import REPOSITORY


def without_decimals(text):
    """Another processor may round the last digits of a distance in another way."""
    return re.sub(r"\d+\.\d+", "#", text)


@pytest.mark.slow
def test_the_page_has_the_outputs_of_today(tmp_path):
    made = tmp_path / "tutorial.md"
    script = REPOSITORY / "scripts/make_tutorial.py"
    done = subprocess.run([sys.executable, script, made], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (REPOSITORY / "docs/tutorial.md").read_text()
    assert without_decimals(made.read_text()) == without_decimals(page), "run scripts/make_tutorial.py"
