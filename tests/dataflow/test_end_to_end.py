"""`configs/dataflow.yaml` against the service: the job is run with what was staged, and commits its data set."""

import json
import subprocess
import sys

import pytest

from pipeline.dataset.verify import verify
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord, png_bytes
from tests.dataflow.service import ENDPOINT, DataflowService
from tests.dataflow.workers import run_for_real
from tests.datasets import embed, read_vectors
from tests.environments import clean_environment, copy_repository

pytestmark = pytest.mark.slow


@pytest.fixture
def base(gcs, tmp_path):
    """A folder of the bucket with 14 good records and a bad one."""
    base = f"gs://bucket/{tmp_path.name}"
    for index in range(5):
        gcs.write(f"{base}/in/{index}.jpg", jpeg_bytes(seed=index))
    gcs.write(f"{base}/in/bad.jpg", b"bad")
    records = make_tfrecord(make_example({"image/encoded": png_bytes(seed=index)}) for index in range(9))
    gcs.write(f"{base}/in/a.tfrecord", records)
    yield base
    gcs.delete()


@pytest.fixture
def start(base, tmp_path, tiny_module):
    """Starts the command in a clone; returns it when it has ended."""
    clone = copy_repository(tmp_path / "clone")

    def start(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.run", "--config=configs/dataflow.yaml", f"--input={base}/in"]
        command += [f"--module={tiny_module}", f"--output={base}/out", "--project=a-project"]
        command += [f"--temp_location={base}/temp", f"--dataflow_endpoint={ENDPOINT}", *flags]
        return subprocess.run(
            command, cwd=clone, env=clean_environment(), capture_output=True, text=True, check=False, timeout=500
        )

    return start


def test_the_config_runs_to_its_end(gcs, base, start, tmp_path, tiny_module):
    """The vectors are those of the DirectRunner, and the next start finds nothing to do."""
    with DataflowService([run_for_real(gcs, tmp_path)]) as service:
        done = start()
        assert done.returncode == 0, done.stderr
        assert "14 of 15 records embedded" in done.stdout
        assert "Traceback" not in done.stderr
        again = start()
    assert again.stdout.startswith("nothing new: all 15 records were done by earlier runs"), again.stderr
    assert len(service.jobs) == 1
    report = verify(f"{base}/out")
    assert (report.rows, report.failures, report.problems, report.strays) == (14, 1, (), ())
    engine = json.loads(gcs.read(f"{base}/out/spec.json"))["engine"]
    embed(f"{base}/in", tmp_path / "direct", tiny_module, engine=engine)
    assert read_vectors(f"{base}/out") == read_vectors(tmp_path / "direct")
