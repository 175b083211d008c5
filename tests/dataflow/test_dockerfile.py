"""The Dockerfile: its steps run here as far as they need no container, with the files that it copies and no others.

`scripts/check.sh` runs hadolint. What installs the lock file is `scripts/install.sh`, with the same options of pip.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.environments import REPOSITORY, clean_environment, make_environment

TEXT = (REPOSITORY / "Dockerfile").read_text()
IGNORED = (REPOSITORY / ".dockerignore").read_text()


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its lines joined.

    Attributes:
      stage: the name of the stage; empty before the first.
      keyword: such as `RUN`.
      value: the rest.
    """

    stage: str
    keyword: str
    value: str


def parse(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword == "FROM":
            stage = value.partition(" AS ")[2] or "default"
        found.append(Instruction(stage, keyword, " ".join(value.split())))
    return found


INSTRUCTIONS = parse(TEXT)


def values(stage: str, keyword: str) -> list[str]:
    return [item.value for item in INSTRUCTIONS if (item.stage, item.keyword) == (stage, keyword)]


def arguments(stage: str = "") -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in values(stage, "ARG"))}


def copied(stage: str) -> list[tuple[list[str], str]]:
    """The sources in the repository and the target of each COPY."""
    own = [value.split() for value in values(stage, "COPY") if not value.startswith("--from=")]
    return [(words[:-1], words[-1]) for words in own]


def locked(name: str) -> dict[str, str]:
    """The versions in a lock file; each package has a hash."""
    text = (REPOSITORY / name).read_text()
    found = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?(?:==| @)", text, re.MULTILINE))
    return dict(found)


def test_the_versions_are_those_of_the_lock_file():
    """Beam's boot program must have the version of Beam, and the launcher's Python that of the workers."""
    assert arguments()["BEAM"] == locked("requirements.lock")["apache-beam"]
    supported = re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "pyproject.toml").read_text())
    assert arguments()["PYTHON"] in supported
    assert values("beam", "FROM") == ["apache/beam_python${PYTHON}_sdk:${BEAM} AS beam"]


def test_both_lock_files_can_be_chosen():
    """The one for a GPU only adds the CUDA libraries."""
    assert arguments("build")["LOCK"] == "requirements.lock"
    (sources,) = [sources for sources, _ in copied("build") if "requirements.lock" in sources]
    assert sources == ["requirements.lock", "requirements-gpu.lock"]
    cpu, gpu = locked("requirements.lock"), locked("requirements-gpu.lock")
    added = {name for name in gpu if name not in cpu}
    assert added
    assert all(name.startswith("nvidia-") for name in added)
    assert {name: version for name, version in gpu.items() if name in cpu and cpu[name] != version} == {}
    sample_only = {"cloudpickle", "joblib", "narwhals", "scikit-learn", "scipy", "threadpoolctl"}
    assert set(cpu) - set(gpu) <= sample_only


def test_the_locked_dependencies_are_installed_as_everywhere():
    (line,) = [value for value in values("build", "RUN") if "--require-hashes" in value]
    flags = set(re.findall(r"--[\w-]+", line))
    install = (REPOSITORY / "scripts/install.sh").read_text()
    assert flags - {"--no-cache-dir", "--requirement"} <= set(re.findall(r"--[\w-]+", install))


def test_the_context_is_what_is_copied():
    sources = {source for stage in ("build", "template") for names, _ in copied(stage) for source in names}
    lines = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {source.partition("/")[0] for source in sources}


def test_workers_start_beams_program_and_are_not_root():
    assert values("worker", "ENTRYPOINT") == ['["/opt/apache/beam/boot"]']
    assert values("worker", "USER") == ["${RUN_AS}"]
    assert arguments("worker")["RUN_AS"] == "beam"
    assert values("default", "FROM") == ["worker"]
    assert INSTRUCTIONS[-1].stage == "default"
    # Beam's program makes a virtual environment without our packages otherwise.
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in values("worker", "ENV")[0]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the environment that the steps after the dependencies make, from what is copied before them."""
    root = tmp_path_factory.mktemp("image")
    source = root / "source"
    source.mkdir()
    for names, target in copied("build"):
        for name in names:
            if (REPOSITORY / name).is_dir():
                shutil.copytree(REPOSITORY / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPOSITORY / name, source / target)
    python = make_environment(root / "opt")
    (step,) = [value for value in values("build", "RUN") if value.startswith("pip install") and value.endswith(" .")]
    command = [sys.executable, "-m", "pip", "--python", python, *step.split()[1:], "--no-index"]
    subprocess.run(command, cwd=source, env=clean_environment(), check=True, capture_output=True)
    shutil.rmtree(source)
    return root


def run(image: Path, *command: str, **variables: str) -> str:
    """Runs a command as in the image, with the variables of the stage `worker`."""
    fixed = dict(re.findall(r"(PYTHON\w+)=(\S+)", values("worker", "ENV")[0]))
    environment = clean_environment(**fixed, **variables)
    environment["PATH"] = f"{image}/opt/bin:{environment['PATH']}"
    done = subprocess.run(command, cwd=image, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_is_complete_without_the_source(image):
    assert run(image, "python", "-m", "pipeline.run", "--help").startswith("usage: python -m pipeline.run")
    where = run(image, "python", "-c", "import pipeline; print(pipeline.__file__)")
    assert where.startswith(f"{image}/opt/")
    # The worker's program, and the modules that a graph of ours names.
    run(image, "python", "-c", "import apache_beam.runners.worker.sdk_worker_main, pipeline.beam.graph")


@pytest.mark.slow
def test_the_template_starts_the_command(image):
    ((sources, target),) = copied("template")
    assert values("template", "ENV") == [f"FLEX_TEMPLATE_PYTHON_PY_FILE={target}"]
    program = image / Path(target).name
    shutil.copy(REPOSITORY / sources[0], program)
    assert run(image, "python", str(program), "--help").startswith("usage: python -m pipeline.run")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["", "untrained:mobilenet_v2_035_96"])
def test_a_module_is_put_into_the_cache_when_the_image_is_built(image, tmp_path, module):
    """A launcher in the image takes it from there."""
    (step,) = values("worker", "RUN")
    cache = tmp_path / "modules"
    script = f"useradd() {{ :; }}\n{step}"  # this machine gets no new user
    output = run(image, "sh", "-ec", script, MODULE=module, TFHUB_CACHE_DIR=str(cache))
    assert ("1280 values" in output) == bool(module)
    assert len(list(cache.iterdir())) == bool(module)
    assert cache.stat().st_mode & 0o7777 == 0o1777
