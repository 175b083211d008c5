"""Workers that cannot do their part: each run ends in one line that names the reason. Workers are processes."""

import dataclasses
import re
from pathlib import Path

import pytest

import pipeline
from pipeline.beam.worker_versions import Versions
from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.dataset.metadata import read_manifests
from tests.datasets import make_photos
from tests.environments import REPOSITORY, copy_repository
from tests.job_services import hide, job_service, worker_args

pytestmark = pytest.mark.slow

HERE = "/proc/self/cwd"
"""The current directory of whoever reads the path: another one in the launcher and in a worker."""


@pytest.fixture(scope="module")
def service():
    with job_service() as found:
        yield found


@pytest.fixture
def run(service, tmp_path, tiny_module, monkeypatch):
    """Runs a job with workers that start in another directory; returns the line of its error."""
    make_photos(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)

    def call(directory, setup="", **flags):
        values = {"input": f"{tmp_path}/photos", "temp_location": f"{tmp_path}/temp", "engine": "tensorflow", **flags}
        config = RunConfig.from_flags(module=str(tiny_module), output=f"{tmp_path}/out", **values)
        args = (*config.beam_args, *worker_args(service.endpoint, directory, setup))
        with pytest.raises(UsageError) as raised:
            pipeline.run(dataclasses.replace(config, beam_args=args))
        assert read_manifests(f"{tmp_path}/out") == ()
        return str(raised.value)

    return call


def test_a_worker_without_the_package(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == (
        "a worker of PortableRunner lacks this package, or has another version of it (ModuleNotFoundError: No module "
        "named 'pipeline'); install the launcher's version where the workers run: in their image, or with "
        "--setup_file=./setup.py"
    )


def test_a_worker_with_another_commit_of_the_package(run, tmp_path):
    copy = copy_repository(tmp_path / "copy")
    with Path(copy, "pipeline/core/keys.py").open("a") as file:
        file.write("# another commit\n")
    assert re.fullmatch(
        r"a worker has another version than the launcher: the code of this package with the digest \w{12}, the "
        rf"launcher has {Versions.here().package}; install the launcher's versions where the workers run, such as in "
        r"their image",
        run(copy),
    )


def test_a_worker_with_another_version_of_beam(run):
    setup = "import apache_beam; apache_beam.__version__ = '2.1.0'"
    assert f"Apache Beam 2.1.0, the launcher has {Versions.here().beam};" in run(REPOSITORY, setup)


def test_a_worker_without_a_dependency(run):
    assert run(REPOSITORY, hide("simplejpeg")) == (
        "a worker of PortableRunner lacks the Python module simplejpeg; install the packages of requirements.lock "
        "where the workers run"
    )


def test_a_worker_that_does_not_see_the_inputs(run):
    assert run(REPOSITORY, input=f"{HERE}/photos") == (
        f"a worker does not see the directory {HERE}/photos, in which the launcher found inputs; expected the same "
        "paths on all machines: mount the directory where the workers run, or use a store such as gs://"
    )


def test_a_worker_that_does_not_see_the_module(run):
    assert re.fullmatch(
        rf"a worker does not see {HERE}/temp/modules/\w{{64}}, to which the launcher copied the module; expected "
        r"--temp_location to be a directory that all machines see under the same path, or in a store such as gs://",
        run(REPOSITORY, temp_location=f"{HERE}/temp"),
    )
