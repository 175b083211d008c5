"""The files in configs/ do what they say: each is loaded, validated and built into a job.

For Dataflow, tests/dataflow/ has the rest.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.portability.api import beam_runner_api_pb2

import pipeline
from pipeline.beam.options import check_options, parse_beam_args
from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.dataset.reader import read_embeddings
from pipeline.savedmodel.digest import module_digest
from pipeline.testing import jpeg_bytes, make_example, make_tfrecord

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path.name for path in (REPOSITORY / "configs").glob("*.yaml"))
PLACES = ["--input=gs://bucket/in", "--output=gs://bucket/out", "--project=a-project", "--temp_location=gs://bucket/t"]


def load(name: str, *args: str) -> RunConfig:
    return RunConfig.from_args([f"--config={REPOSITORY / 'configs' / name}", *args])


def keys(output: Any) -> list[bytes]:
    return sorted(key for batch in read_embeddings(str(output)) for key in batch["key"].to_pylist())


def test_there_are_configs():
    assert CONFIGS == ["dataflow.yaml", "dataflow_gpu.yaml", "flink.yaml", "local.yaml", "prism.yaml", "spark.yaml"]
    others = {path.name for path in (REPOSITORY / "configs").iterdir()} - set(CONFIGS)
    assert others == {"dataflow_template.json", "dataflow_template_metadata.json"}


CLUSTERS = ("flink", "spark", "prism")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_line_overrides_each_value(name):
    config = load(name, *PLACES, "--module=untrained:mobilenet_v2_035_96", "--runner=DirectRunner")
    assert config.input.input == ("gs://bucket/in",)
    assert config.output.output == "gs://bucket/out"
    assert config.module.module == "untrained:mobilenet_v2_035_96"
    check_options(parse_beam_args(config.beam_args))
    assert "--runner=DirectRunner" in config.beam_args
    assert sum(arg.startswith("--runner") for arg in config.beam_args) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_in_the_comment_names_the_file(name):
    text = (REPOSITORY / "configs" / name).read_text()
    assert f"--config=configs/{name}" in text
    assert yaml.safe_load(text)["runner"] in ("DirectRunner", "DataflowRunner", "PortableRunner")


def test_local_yaml_runs_on_sample_records(tmp_path, monkeypatch, tiny_module):
    monkeypatch.chdir(tmp_path)
    for shard in range(2):
        path = tmp_path / "local_run/sample/records" / f"sample.tfrecord-{shard:05d}-of-00002"
        path.parent.mkdir(parents=True, exist_ok=True)
        features = {"image/encoded": jpeg_bytes(seed=shard), "image/key": f"key-{shard}", "image/label": shard}
        path.write_bytes(make_tfrecord([make_example({**features, "image/size": (40, 48)})]))
    summary = pipeline.run(load("local.yaml", f"--module={tiny_module}", "--engine=tensorflow"))
    assert (summary.records, summary.embedded, summary.runner) == (2, 2, "DirectRunner")
    out = tmp_path / "local_run/from_config"
    assert keys(out) == [b"key-0", b"key-1"]
    assert {path.suffix for path in (out / "embeddings").iterdir()} == {".tfrecord"}
    assert {path.suffix for path in (out / "embeddings-parquet").iterdir()} == {".parquet"}
    (batch,) = {tuple(batch.schema.names) for batch in read_embeddings(str(out))}
    assert {"image/label", "image/size"} <= set(batch)


def test_dataflow_yaml_must_be_run_beside_setup_py(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = r"^--setup_file=\./setup\.py is not there; expected a file, from the current directory$"
    with pytest.raises(UsageError, match=text):
        pipeline.run(load("dataflow.yaml", *PLACES))


def test_dataflow_yaml_needs_a_project(monkeypatch, gcs):
    monkeypatch.chdir(REPOSITORY)
    places = [place for place in PLACES if not place.startswith("--project")]
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    text = "^--runner=DataflowRunner: Missing required option: project. See Beam's documentation of its options$"
    with pytest.raises(UsageError, match=text):
        pipeline.run(load("dataflow.yaml", *places))


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_clusters_yaml_is_a_portable_job(engine, tmp_path, tiny_module):
    """Beam's own job service, in this process, takes the place of the engine's; workers are threads."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg_bytes())
    places = [f"--input={tmp_path}/photos", f"--output={tmp_path}/out", f"--temp_location={tmp_path}/temp"]
    config = load(
        f"{engine}.yaml",
        *places,
        f"--module={tiny_module}",
        "--engine=tensorflow",
        "--job_endpoint=embed",
        "--environment_type=LOOPBACK",
        "--environment_config=",
    )
    summary = pipeline.run(config)
    assert (summary.records, summary.embedded, summary.runner) == (1, 1, "PortableRunner")
    assert keys(tmp_path / "out") == [b"a.jpg"]
    assert (tmp_path / "temp/modules" / module_digest(tiny_module) / "saved_model.pb").is_file()


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_clusters_yaml_starts_workers_with_the_command_in_the_repository(engine):
    environment = default_environment(f"{engine}.yaml")
    command = beam_runner_api_pb2.ProcessPayload.FromString(environment.payload).command
    assert os.access(REPOSITORY / "scripts/clusters/bin" / command, os.X_OK)


def test_flink_yaml_puts_workers_into_the_container_that_is_named():
    environment = default_environment("flink.yaml", "--environment_type=DOCKER", "--environment_config=an/image")
    assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == "an/image"


def default_environment(name: str, *args: str) -> Any:
    from apache_beam.runners.portability.portable_runner import PortableRunner

    options = parse_beam_args(load(name, *PLACES, *args).beam_args)
    return PortableRunner().default_environment(options).to_runner_api(None)


def test_flink_yaml_uses_both_task_managers():
    from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions

    options = parse_beam_args(load("flink.yaml", *PLACES).beam_args)
    assert options.view_as(FlinkRunnerOptions).parallelism == 2
    assert options.view_as(PortableOptions).sdk_worker_parallelism == "1"


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_clusters_yaml_names_the_port_of_the_script(engine):
    script = (REPOSITORY / f"scripts/clusters/{engine}.sh").read_text()
    (port,) = re.findall(r"^ENGINE_DEFAULT_JOB_PORT=(\d+)$", script, re.MULTILINE)
    assert f"--job_endpoint=localhost:{port}" in load(f"{engine}.yaml", *PLACES).beam_args
