"""Workers that have no TensorFlow: they load what the launcher has converted. Workers are processes."""

import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import ModuleError
from tests.datasets import make_photos, read_vectors
from tests.environments import REPOSITORY
from tests.job_services import hide, job_service, worker_args

pytestmark = pytest.mark.slow

OTHER_OPENVINO = """
from importlib import metadata
installed = metadata.version
metadata.version = lambda name: "2000.1" if name == "openvino" else installed(name)
"""


@pytest.fixture(scope="module")
def service():
    with job_service() as found:
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    directory = tmp_path_factory.mktemp("photos")
    make_photos(directory, 5)
    return directory


@pytest.fixture(scope="module")
def expected(photos, convolutions, tmp_path_factory):
    """The vectors of a run in this process."""
    out = tmp_path_factory.mktemp("direct") / "out"
    pipeline.run(RunConfig.from_flags(input=str(photos), module=convolutions, output=str(out), engine="openvino"))
    return read_vectors(out)


@pytest.fixture
def log(tmp_path):
    """The file of the workers' log. Beam sends log entries to the launcher, but a job does not wait for them."""
    return tmp_path / "worker.log"


@pytest.fixture
def run(service, tmp_path, photos, convolutions, log):
    """Runs a job whose workers have an empty cache; returns its vectors."""
    first = f"""
import logging, os
os.environ["TFHUB_CACHE_DIR"] = {str(tmp_path / "cache")!r}
logging.getLogger("pipeline").addHandler(logging.FileHandler({str(log)!r}))
"""

    def call(setup):
        config = RunConfig.from_args(
            [
                f"--input={photos}",
                f"--module={convolutions}",
                f"--output={tmp_path}/out",
                "--engine=openvino",
                f"--temp_location={tmp_path}/temp",
                *worker_args(service.endpoint, REPOSITORY, first + setup),
            ]
        )
        pipeline.run(config)
        return read_vectors(tmp_path / "out")

    return call


def entries(tmp_path):
    return sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir())


def test_a_worker_without_tensorflow_computes_the_same_bits(run, expected, tmp_path, log):
    assert run(hide("tensorflow")) == expected
    assert entries(tmp_path) == ["openvino"], "a worker needs no copy of the module"
    assert "converts the module itself" not in log.read_text()


def test_a_worker_with_another_openvino_converts_the_module_and_says_so(run, expected, tmp_path, log):
    assert run(OTHER_OPENVINO) == expected
    assert entries(tmp_path) == ["openvino"]
    assert "this worker converts the module itself, because OpenVINO is 2000.1 here and " in log.read_text()


def test_a_worker_that_cannot_convert_the_module_ends_the_run_in_one_line(run):
    text = (
        r"^module \S+ must be converted on this machine, because OpenVINO is 2000\.1 here and \S+ on the launcher, and "
        r"cannot be: No module named 'tensorflow'; install the packages of requirements\.lock$"
    )
    with pytest.raises(ModuleError, match=text):
        run(OTHER_OPENVINO + hide("tensorflow"))
