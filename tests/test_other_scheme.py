"""Data, module and data set in a store that only Beam knows; the workers are processes with an empty cache."""

import shutil

import pytest

import pipeline
from pipeline.core.config import RunConfig
from pipeline.dataset.verify import verify
from tests.datasets import make_photos, read_vectors
from tests.disk_store import SCHEME, DiskFileSystem
from tests.environments import REPOSITORY
from tests.job_services import hide, job_service, worker_args


@pytest.mark.slow
def test_every_scheme_that_beam_reads_will_do(tmp_path, convolutions):
    make_photos(tmp_path / "photos/a", 2)
    make_photos(tmp_path / "photos/b", 1)
    shutil.copytree(convolutions, tmp_path / "module")
    here, store = str(tmp_path), f"{SCHEME}://{tmp_path}"
    cache = f"import os; os.environ['TFHUB_CACHE_DIR'] = '{here}/cache'\n"

    def flags(place, name):
        inputs = [f"--input={place}/photos/a", f"--input={place}/photos/b"]
        return [*inputs, f"--module={place}/module", f"--output={place}/{name}", "--engine=openvino"]

    with job_service() as service:
        args = worker_args(service.endpoint, REPOSITORY, cache + hide("tensorflow"))
        plugin = f"--beam_plugin={DiskFileSystem.__module__}.{DiskFileSystem.__name__}"
        for _ in range(2):  # the second run finds that all is done
            summary = pipeline.run(
                RunConfig.from_args([*flags(store, "remote"), f"--temp_location={store}/temp", *args, plugin])
            )
    assert (summary.records, summary.skipped) == (0, 3)
    pipeline.run(RunConfig.from_args(flags(here, "local")))
    assert read_vectors(f"{store}/remote") == read_vectors(f"{here}/local")
    report = verify(f"{store}/remote")
    assert (report.rows, report.problems, report.strays) == (3, (), ())
