"""The jobs that the configurations for Dataflow submit, and the files that they stage."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator

import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud.dataflow import AutoscalingAlgorithm, JobType

import pipeline
from pipeline.core.config import RunConfig
from pipeline.core.errors import PipelineError
from pipeline.savedmodel.digest import module_digest
from pipeline.testing import jpeg_bytes
from tests.dataflow.service import ENDPOINT, DataflowService, PlayedJob, states
from tests.dataflow.workers import SDIST, StagedJob, options_of
from tests.environments import REPOSITORY, copy_repository

pytestmark = pytest.mark.slow

IMAGE = "region.example/project/image:tag"
MAX_GRAPH_BYTES = 200_000
"""Dataflow refuses jobs of more than 10 MB."""


@pytest.fixture
def submit(gcs, tmp_path, tiny_module, monkeypatch) -> Iterator[Callable[..., PlayedJob]]:
    """Runs a configuration until the service ends its job; returns the job."""
    base = f"gs://bucket/{tmp_path.name}"

    def submit(name: str, *flags: str) -> PlayedJob:
        arguments = [f"--config={REPOSITORY / 'configs' / name}", "--project=a-project", f"--output={base}/out"]
        arguments += [f"--module={tiny_module}", f"--temp_location={base}/temp", f"--dataflow_endpoint={ENDPOINT}"]
        if not any(flag.startswith("--input") for flag in flags):
            gcs.write(f"{base}/in/a.jpg", jpeg_bytes())
            arguments += [f"--input={base}/in"]
        ending = pytest.raises(PipelineError, match=r"^the job of wave \d+ was cancelled by somebody else")
        with DataflowService([states("JOB_STATE_CANCELLED")]) as service, ending:
            pipeline.run(RunConfig.from_args([*arguments, *flags]))
        (played,) = service.jobs
        return played

    yield submit
    gcs.delete()


def graph_of(gcs, played: PlayedJob) -> beam_runner_api_pb2.Pipeline:
    return StagedJob.read(gcs, played.job.environment).graph


def image_of(graph: beam_runner_api_pb2.Pipeline) -> beam_runner_api_pb2.Environment:
    """The one container of all steps."""
    (container,) = graph.components.environments.values()
    assert container.urn == common_urns.environments.DOCKER.urn
    return container


def test_dataflow_yaml(submit, gcs, tmp_path, tiny_module, monkeypatch):
    """Workers, machine, experiments and environment are those of the file; the package is staged as its source."""
    monkeypatch.chdir(copy_repository(tmp_path / "clone"))
    played = submit("dataflow.yaml", "--engine=tensorflow")
    job, environment = played.job, played.job.environment
    assert (job.name, played.region, job.type_) == ("embedding-pipeline", "us-central1", JobType.JOB_TYPE_BATCH)
    assert "no_use_multiple_sdk_containers" in environment.experiments
    assert "use_multiple_sdk_containers" not in environment.experiments
    assert list(environment.service_options) == []
    (pool,) = environment.worker_pools
    assert (pool.kind, pool.machine_type, pool.disk_size_gb, pool.num_workers) == ("harness", "n2-standard-4", 50, 2)
    assert pool.autoscaling_settings.max_num_workers == 20
    assert pool.autoscaling_settings.algorithm == AutoscalingAlgorithm.AUTOSCALING_ALGORITHM_BASIC
    (container,) = pool.sdk_harness_container_images
    assert re.search(r"/beam_python3\.\d+_sdk:2\.\d+\.\d+$", container.container_image)

    staged = StagedJob.read(gcs, environment)
    names = {step.unique_name for step in staged.graph.components.transforms.values()}
    assert {"ReadImages", "EmbedImages", "WriteEmbeddings"} <= {name.split("/")[0] for name in names}
    # Else one worker could be left with all that there is to read.
    assert "ReadImages/Spread" in names
    with tarfile.open(fileobj=io.BytesIO(staged.files[SDIST])) as sdist:
        members = {name.partition("/")[2] for name in sdist.getnames()}
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pipeline").rglob("*.py")}
    assert {"setup.py", "pyproject.toml", "pipeline/py.typed", *sources} <= members
    assert not {member for member in members if member.startswith(("tests/", "benchmarks/"))}

    temp = f"gs://bucket/{tmp_path.name}/temp"
    assert f"{temp}/modules/{module_digest(tiny_module)}/saved_model.pb" in gcs.paths()
    options = options_of(environment)
    assert options["temp_location"].startswith(f"{temp}/embedding-pipeline.")
    packages = {package.name: package.location for package in pool.packages}
    assert packages.keys() == staged.files.keys()


@pytest.fixture
def with_image(tmp_path) -> str:
    """`dataflow.yaml` changed as its comment says."""
    config = tmp_path / "with_image.yaml"
    text = (REPOSITORY / "configs/dataflow.yaml").read_text()
    config.write_text(text.replace("setup_file: ./setup.py", f"sdk_container_image: {IMAGE}"))
    return str(config)


def test_an_image_takes_the_place_of_the_setup_file(submit, gcs, with_image):
    """With the image, the workers install nothing."""
    played = submit(with_image, "--engine=tensorflow")
    (pool,) = played.job.environment.worker_pools
    assert pool.worker_harness_container_image == IMAGE
    staged = StagedJob.read(gcs, played.job.environment)
    payload = beam_runner_api_pb2.DockerPayload.FromString(image_of(staged.graph).payload)
    assert payload.container_image == IMAGE
    assert SDIST not in staged.files


def test_dataflow_gpu_yaml(submit, gcs):
    """The engine is that of the GPU, although the launcher has none."""
    played = submit("dataflow_gpu.yaml", f"--sdk_container_image={IMAGE}")
    environment = played.job.environment
    assert list(environment.service_options) == ["worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"]
    assert "no_use_multiple_sdk_containers" in environment.experiments
    (pool,) = environment.worker_pools
    assert (pool.machine_type, pool.disk_size_gb, pool.num_workers) == ("g2-standard-8", 100, 1)
    assert pool.autoscaling_settings.max_num_workers == 10
    assert pool.worker_harness_container_image == IMAGE
    (spec,) = [path for path in gcs.paths() if path.endswith("/out/spec.json")]
    assert json.loads(gcs.read(spec))["engine"] == "tensorflow"


def test_resource_hints_reach_every_step(submit, gcs, with_image):
    accelerator = "type:nvidia-l4;count:1;install-nvidia-driver"
    hints = ["--resource_hints=min_ram=12GB", f"--resource_hints=accelerator={accelerator}"]
    played = submit(with_image, *hints, "--engine=tensorflow")
    container = image_of(graph_of(gcs, played))
    assert dict(container.resource_hints) == {
        common_urns.resource_hints.MIN_RAM_BYTES.urn: b"12000000000",
        common_urns.resource_hints.ACCELERATOR.urn: accelerator.encode(),
    }


def test_the_graph_does_not_grow_with_the_input(submit, gcs, tmp_path):
    """20,000 files are in the plan, which is staged beside the data set."""
    listing = f"gs://bucket/{tmp_path.name}/list.txt"
    sizes = []
    for count in (1, 20_000):
        gcs.write(listing, "".join(f"gs://bucket/photos/{number:05d}.jpg\n" for number in range(count)).encode())
        flags = [f"--input={listing}", "--input_format=list", "--engine=tensorflow", "--overwrite"]
        played = submit("dataflow_gpu.yaml", f"--sdk_container_image={IMAGE}", *flags)
        sizes.append(graph_of(gcs, played).ByteSize())
    assert sizes[1] < sizes[0] + 1000
    assert sizes[1] < MAX_GRAPH_BYTES
