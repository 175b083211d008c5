"""`./run_local.sh`, in a copy of the repository whose .venv sees the packages of this one."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.testing import jpeg_bytes
from tests.environments import REPOSITORY, clean_environment, copy_repository, make_environment
from tests.hub.server import answer

pytestmark = pytest.mark.slow

FAILED = """
failed    1 empty            such as broken-empty
          1 missing_feature  such as broken-no-image
          1 not_an_image     such as broken-text
          1 truncated        such as broken-truncated
"""


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = copy_repository(tmp_path_factory.mktemp("a folder with spaces") / "clone")
    make_environment(clone / ".venv")
    shutil.copy(clone / "requirements.lock", clone / ".venv/installed-requirements.lock")
    return clone


def run_local(clone: Path, cwd: Path, *args: str) -> Done:
    # Nothing answers at port 1: whatever network there is, no address of a module answers.
    environment = clean_environment(https_proxy="http://127.0.0.1:1", HTTPS_PROXY="http://127.0.0.1:1", no_proxy="")
    done = subprocess.run(
        [clone / "run_local.sh", *args],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def sample(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run_local(clone, tmp_path_factory.mktemp("elsewhere"))


def test_without_arguments_it_embeds_the_sample(clone, sample):
    assert sample.code == 0
    assert re.match(r"128 of 132 records embedded in \d+\.\d s \(\d+ images/s\), 1280 values each\n", sample.stdout)
    assert f"data set  {clone}/local_run/embeddings\n" in sample.stdout
    assert FAILED in sample.stdout
    assert f" -m pipeline.verify '{clone}/local_run/embeddings'\n" in sample.stdout  # the path has spaces
    rows = re.findall(r"^(\S+)  \[(?:-?\d+\.\d{4}, ){4}\.\.\. 1280 values\](.*)$", sample.stdout, re.MULTILINE)
    assert len(rows) == 3
    assert "broken-text  failed: not_an_image: no known image begins with" in sample.stdout
    assert re.findall(r"^https://(\S+?)/\S+/(\S+) does not answer$", sample.stderr, re.MULTILINE) == [
        ("storage.googleapis.com", "1.tar.gz"),
        ("tfhub.dev", "5"),
    ]
    assert "using the built-in network with random weights instead: untrained:mobilenet_v2_050_160\n" in sample.stderr
    assert "WARNING: untrained:mobilenet_v2_050_160 has random weights." in sample.stderr


def test_a_second_run_is_like_the_first(clone, sample, tmp_path):
    again = run_local(clone, tmp_path)
    assert again.code == 0
    assert again.stdout.startswith("128 of 132 records embedded")
    assert list(tmp_path.iterdir()) == []


def test_own_photos_by_paths_of_the_caller(clone, tmp_path, tiny_module):
    (tmp_path / "my photos").mkdir()
    (tmp_path / "pipeline").mkdir()  # which is not the package
    (tmp_path / "pipeline/__init__.py").write_text("raise ImportError")
    for index in range(3):
        (tmp_path / f"my photos/{index}.jpg").write_bytes(jpeg_bytes(seed=index))
    (tmp_path / "a module").symlink_to(tiny_module)
    done = run_local(
        clone, tmp_path, "--input", "my photos", "--module=a module", "--output", "my out", "--engine=openvino"
    )
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("3 of 3 records embedded")
    assert re.search(r"^0\.jpg  \[.* 8 values\]$", done.stdout, re.MULTILINE)
    assert json.loads((tmp_path / "my out/summary.json").read_text())["embedded"] == 3
    assert "does not answer" not in done.stderr


def test_own_photos_without_an_output_go_on_where_the_last_run_stopped(clone, tmp_path, tiny_module):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    args = ["--input", "a.jpg", f"--module={tiny_module}", "--engine=openvino"]
    assert run_local(clone, tmp_path, *args).stdout.startswith("1 of 1 records embedded")
    assert "nothing new" in run_local(clone, tmp_path, *args).stdout
    assert (clone / "local_run/own/spec.json").is_file()


def test_a_configuration_takes_the_place_of_the_defaults(clone, tmp_path, tiny_module):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg_bytes())
    settings = {"input": "photos", "module": str(tiny_module), "output": "here", "engine": "openvino"}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    done = run_local(clone, tmp_path, "--config=run.yaml")
    assert (done.code, done.stderr) == (0, "")
    assert "data set  here\n" in done.stdout
    assert "\na.jpg  [" in done.stdout
    assert (tmp_path / "here/spec.json").is_file()


def test_exit_codes_are_those_of_the_main_job(clone, tmp_path, tiny_module):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    mistake = run_local(clone, tmp_path, "--input=nowhere", f"--module={tiny_module}", "--output=out")
    assert (mistake.code, mistake.stdout) == (2, "")
    expected = "expected image files, TFRecords, tar or Parquet files; check the path"
    assert mistake.stderr == f"error: no input matched nowhere; {expected}\n"
    failed = run_local(clone, tmp_path, "--input=a.jpg", f"--module={tiny_module}", "--output=out", "--engine=openvino")
    assert failed.code == 3
    assert "a.jpg  failed: not_an_image:" in failed.stdout


def test_help_and_dry_run_show_no_data_set(clone, tmp_path, tiny_module):
    told = run_local(clone, tmp_path, "--help")
    assert (told.code, told.stderr) == (0, "")
    assert told.stdout.startswith("usage: python -m pipeline.run")
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    args = ["--input=a.jpg", f"--module={tiny_module}", "--output=out", "--engine=openvino"]
    dry = run_local(clone, tmp_path, *args, "--dry_run")
    assert dry.code == 0
    assert dry.stdout.endswith("nothing was written\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("status", "body", "code"), [(200, b"\x1f\x8bx", 0), (200, b"<html>log in", 1), (403, b"\x1f\x8bx", 1)]
)
def test_whether_an_address_serves_a_module(server, status, body, code):
    server.answers["/moved"] = [answer(b"", 302, Location=server.url("/1.tar.gz"))]
    server.answers["/1.tar.gz"] = [answer(body, status)]
    command = [sys.executable, REPOSITORY / "scripts/serves_archive.py", server.url("/moved")]
    done = subprocess.run(command, env=clean_environment(no_proxy="127.0.0.1"), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_the_set_up_refuses_another_python(tmp_path):
    clone = copy_repository(tmp_path / "clone")
    fake = tmp_path / "python2"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [clone / "run_local.sh"], env=clean_environment(PYTHON=str(fake)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"error: none of {fake} is a Python 3.11 to 3.13; install one, or set PYTHON to its path\n"
