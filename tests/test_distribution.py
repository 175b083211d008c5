"""What `python -m build` makes, installed elsewhere, runs without this repository."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from pipeline.testing import jpeg_bytes
from tests.environments import REPOSITORY, clean_environment, copy_repository, make_environment

pytestmark = pytest.mark.slow

# Distributions that are imported by another name.
GOOGLE = {
    "google.api_core": "google-api-core",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
}
IMPORT_NAMES = {
    "cv2": "opencv-python-headless",
    "grpc": "grpcio",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "faiss": "faiss-cpu",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_repository(tmp_path_factory.mktemp("source") / "clone")
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an environment in which the wheel is installed."""
    python = make_environment(tmp_path_factory.mktemp("environment") / "venv")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(command, env=clean_environment(), check=True, capture_output=True)
    return python


def run(python: Path, cwd: Path, *args: str) -> str:
    done = subprocess.run(
        [python, *args], cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sources() -> list[str]:
    return sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pipeline").rglob("*.py"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    templates = {
        path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pipeline/report/templates").iterdir()
    }
    assert {*sources(), *templates, "pipeline/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"pipeline"}


def test_the_source_distribution_can_be_built_again(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*sources(), "pipeline/py.typed", "pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names


def test_the_main_job_runs_from_any_folder(python, tmp_path, tiny_module):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg_bytes())
    flags = ["--input=photos", f"--module={tiny_module}", "--output=out", "--engine=openvino"]
    assert "1 of 1 records embedded" in run(python, tmp_path, "-m", "pipeline.run", *flags)
    assert "nothing new" in run(python, tmp_path, python.parent / "embedding-pipeline", *flags)
    where = run(python, tmp_path, "-c", "import pipeline; print(pipeline.__file__)")
    assert where.startswith(str(python.parent.parent))


@pytest.mark.parametrize("module", ["pipeline.run", "pipeline.hub", "pipeline.verify"])
def test_commands_tell_their_flags(python, tmp_path, module):
    assert run(python, tmp_path, "-m", module, "--help").startswith("usage: python -m ")


def test_a_module_is_described(python, tmp_path, tiny_module):
    assert "embedding   8 values" in run(python, tmp_path, "-m", "pipeline.hub", "describe", str(tiny_module))


def imported() -> set[str]:
    """The distributions that the package's modules import from, wherever in them the import is."""
    names = set()
    for source in sources():
        for node in ast.walk(ast.parse((REPOSITORY / source).read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    found = set()
    for name in names:
        top = name.partition(".")[0]
        if top == "google":
            found.update(distribution for prefix, distribution in GOOGLE.items() if name.startswith(prefix))
            assert name.startswith(tuple(GOOGLE)), name
        elif top != "pipeline" and top not in sys.stdlib_module_names:
            found.add(IMPORT_NAMES.get(top) or top.replace("_", "-"))
    return found


def test_the_metadata_names_whatever_is_imported(metadata):
    required = {re.match(r"[\w.-]+", text)[0].lower() for text in metadata.get_all("Requires-Dist")}
    assert imported() - required == set()
    assert {"apache-beam", "tensorflow", "protobuf", "opencv-python-headless", "pyyaml"} <= imported()
    for name in imported():
        importlib.metadata.version(name)


def test_the_metadata_is_that_of_pyproject(metadata):
    assert metadata["Name"] == "embedding-pipeline"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (REPOSITORY / "README.md").read_text() in metadata.get_payload()
