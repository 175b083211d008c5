"""A runner whose workers are elsewhere, played by one that is here: only what it was told of the module differs."""

import logging
import re

import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import PipelineError, UsageError
from pipeline.dataset.reader import read_embeddings
from pipeline.engines import staging
from pipeline.savedmodel.digest import module_digest
from pipeline.storage import filesystem
from pipeline.testing import jpeg_bytes


class RemoteRunner(FnApiRunner):
    pass


class _InterruptedResult:
    """A job that goes on elsewhere when the user stops to wait for it."""

    def __init__(self):
        self.cancelled = False

    def wait_until_finish(self):
        raise KeyboardInterrupt

    def cancel(self):
        self.cancelled = True
        raise NotImplementedError("cannot be cancelled")


class InterruptedRunner(RemoteRunner):
    result = _InterruptedResult()

    def run_pipeline(self, pipeline, options):
        return self.result


RUNNER = f"{__name__}.{RemoteRunner.__name__}"


@pytest.fixture
def flags(gcs, tmp_path, tiny_module, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    base = f"gs://bucket/{tmp_path.name}"
    for index in range(3):
        gcs.write(f"{base}/photos/{index}.jpg", jpeg_bytes(seed=index))
    return {
        "input": f"{base}/photos",
        "module": str(tiny_module),
        "output": f"{base}/out",
        "runner": RUNNER,
        "temp_location": f"{base}/temp",
        "engine": "tensorflow",
    }


def rows(output):
    return {row["key"]: row["embedding"] for batch in read_embeddings(output) for row in batch.to_pylist()}


def test_the_module_travels_through_the_temp_location(flags, gcs, tiny_module, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pipeline")
    summary = pipeline.run(RunConfig.from_flags(**flags))
    assert (summary.records, summary.embedded, summary.runner) == (3, 3, RUNNER)
    staged = f"{flags['temp_location']}/modules/{module_digest(tiny_module)}"
    names = {path.removeprefix(staged + "/") for path in gcs.paths(staged + "/")}
    assert {"saved_model.pb", "variables/variables.index"} <= names
    assert f"staged the module to {staged}" in caplog.messages
    # The worker took the copy: it is in the cache, which a local directory never enters.
    assert [path.name[:7] for path in (tmp_path / "cache").iterdir()] == ["module-"]
    assert sum("loaded the module" in message for message in caplog.messages) == 1

    local = {**flags, "runner": "DirectRunner", "temp_location": None, "output": str(tmp_path / "local")}
    pipeline.run(RunConfig.from_flags(**local))
    remote_rows, local_rows = rows(flags["output"]), rows(local["output"])
    assert remote_rows.keys() == local_rows.keys() == {b"0.jpg", b"1.jpg", b"2.jpg"}
    for key, vector in remote_rows.items():
        np.testing.assert_array_equal(vector, local_rows[key])


def test_a_worker_refuses_a_module_of_another_digest(flags, tiny_module, gcs, monkeypatch):
    def stage_and_spoil(*args):
        staged = stage_module(*args)
        filesystem.write_atomically(f"{staged}/variables/variables.index", b"spoilt")
        return staged

    stage_module = staging.stage_module
    monkeypatch.setattr(staging, "stage_module", stage_and_spoil)
    with pytest.raises(PipelineError, match=f"its SHA-256 is .*, expected {module_digest(tiny_module)}") as error:
        pipeline.run(RunConfig.from_flags(**flags))
    assert error.value.exit_code == 2
    assert rows(flags["output"]) == {}


def test_a_remote_runner_needs_a_temp_location(flags):
    text = (
        f"--runner={RUNNER} needs --temp_location=DIRECTORY to bring the module to its workers; name one that they can "
        "read too, such as gs://BUCKET/temp"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        pipeline.run(RunConfig.from_flags(**{**flags, "temp_location": None}))


def test_an_interrupted_run_cancels_its_job(flags, gcs, caplog):
    runner = f"{__name__}.{InterruptedRunner.__name__}"
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(RunConfig.from_flags(**{**flags, "runner": runner}))
    assert InterruptedRunner.result.cancelled
    assert "the job could not be cancelled (cannot be cancelled); its wave will not count" in caplog.messages
    assert not gcs.paths(f"{flags['output']}/manifests/")
    # Its lock is free again.
    assert pipeline.run(RunConfig.from_flags(**flags)).embedded == 3
