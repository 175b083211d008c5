"""Copies of this repository and virtual environments to run them in, made without downloading anything."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def copy_repository(directory: Path) -> Path:
    """Copies what a clone has of the package and its scripts: using them leaves files beside them."""
    shutil.copytree(
        REPOSITORY,
        directory,
        ignore=lambda folder, names: [
            name
            for name in names
            if name.startswith(".")
            or name in ("__pycache__", "build", "dist", "local_run", "tests")
            or name.endswith(".egg-info")
        ],
    )
    return directory


def make_environment(directory: Path) -> Path:
    """Makes a virtual environment that sees the packages of the one that runs the tests, and has none of its own.

    Returns:
      Its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    python = directory / "bin" / "python"
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", command], check=True, capture_output=True, text=True).stdout.strip()
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(seen)]
    Path(own, "packages_of_the_tests.pth").write_text("".join(lines))
    return python


def clean_environment(**variables: str) -> dict[str, str]:
    """Returns the environment variables of a user who has set none for Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
