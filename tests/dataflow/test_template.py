"""The Flex Template: its files, and a job that starts after the launcher has ended.

The rules for the files are those of Google's pages "Configure Flex Templates" and "REST Resource:
projects.locations.flexTemplates", as far as the messages of `google-cloud-dataflow-client` do not check them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.cloud.dataflow import ContainerSpec, Job, ParameterType, TemplateMetadata
from google.protobuf import json_format

import pipeline
from pipeline.core.config import RunConfig, make_parser
from pipeline.core.errors import OutputError, UsageError
from pipeline.dataset.metadata import read_manifests
from pipeline.dataset.verify import verify
from pipeline.job.template import write_template
from pipeline.run import main
from pipeline.testing import jpeg_bytes
from tests.dataflow.workers import StagedJob
from tests.datasets import embed, read_vectors
from tests.environments import REPOSITORY, copy_repository

SPEC: dict[str, Any] = json.loads((REPOSITORY / "configs/dataflow_template.json").read_text())
METADATA: dict[str, Any] = json.loads((REPOSITORY / "configs/dataflow_template_metadata.json").read_text())
REQUIRED = {"name", "label", "helpText"}
PLAN = r"staging/[0-9a-f]{32}/\d{5}/"
"""A job whose wave is committed, or that lost the lock, does not find its plan."""
SAMPLES = {
    "input": "gs://bucket/photos/*.tfrecord",
    "output": "gs://bucket/out",
    "module": "untrained:mobilenet_v2_035_96",
    "module_sha256": "0" * 64,
    "image_feature": "image/jpeg",
    "key_feature": "image/filename",
    "passthrough": "image/label,image/size",
}


class TestFiles:
    def test_the_spec_is_a_container_spec(self):
        """Unknown fields, wrong types and unknown enumeration values are refused."""
        spec = ContainerSpec()
        json_format.ParseDict(SPEC, ContainerSpec.pb(spec))
        assert spec.image == spec.default_environment.sdk_container_image == "IMAGE"
        assert spec.sdk_info.language.name == "PYTHON"

    def test_the_metadata_file_is_the_metadata_of_the_spec(self):
        json_format.ParseDict(METADATA, TemplateMetadata.pb(TemplateMetadata()))
        assert SPEC["metadata"] == METADATA

    @pytest.mark.parametrize("parameter", METADATA["parameters"], ids=lambda parameter: parameter["name"])
    def test_each_parameter_is_a_flag_with_a_value(self, parameter):
        assert parameter.keys() >= REQUIRED
        assert "?" not in parameter["label"]
        (action,) = [action for action in make_parser()._actions if action.dest == parameter["name"]]
        assert action.nargs is None
        assert ParameterType[parameter["paramType"]]
        if parameter["paramType"] == "ENUM":
            assert {option["value"] for option in parameter["enumOptions"]} == set(action.choices)

    def test_the_required_parameters_are_the_required_flags(self):
        required = {parameter["name"] for parameter in METADATA["parameters"] if not parameter.get("isOptional")}
        assert required == {"input", "output", "module"}

    def test_values_that_the_expressions_accept_are_accepted_by_the_command(self):
        """A default is the default of the flag."""
        values = {}
        for parameter in METADATA["parameters"]:
            name = parameter["name"]
            values[name] = value = parameter.get("defaultValue", SAMPLES.get(name))
            assert all(re.fullmatch(expression, value) for expression in parameter.get("regexes", ())), name
        given = RunConfig.from_args([f"--{name}={value}" for name, value in values.items()])
        needed = {name: value for name, value in values.items() if name in SAMPLES}
        defaults = RunConfig.from_flags(**needed, wave_bytes="256GiB")
        assert given == defaults

    def test_the_environment_is_that_of_the_config(self):
        """One SDK process for each worker, on the machines of dataflow.yaml."""
        import yaml

        config = yaml.safe_load((REPOSITORY / "configs/dataflow.yaml").read_text())
        environment = SPEC["defaultEnvironment"]
        assert environment["additionalExperiments"] == config["experiments"]
        assert environment["machineType"] == config["worker_machine_type"]
        assert (environment["numWorkers"], environment["maxWorkers"]) == (
            config["num_workers"],
            config["max_num_workers"],
        )
        assert environment["diskSizeGb"] == config["disk_size_gb"]


@pytest.fixture
def flags(gcs, tmp_path, tiny_module, monkeypatch):
    """Those that the launcher of a Flex Template passes, and the parameters; the package is staged as its source."""
    monkeypatch.chdir(copy_repository(tmp_path / "clone"))
    base = f"gs://bucket/{tmp_path.name}"
    for index in range(4):
        gcs.write(f"{base}/in/{index}.jpg", jpeg_bytes(seed=index))
    yield {
        "runner": "DataflowRunner",
        "project": "a-project",
        "region": "us-central1",
        "job_name": "a-job",
        "temp_location": f"{base}/temp",
        "template_location": f"{base}/staging/job_object",
        "experiments": "no_use_multiple_sdk_containers",
        "setup_file": "./setup.py",
        "input": f"{base}/in",
        "output": f"{base}/out",
        "module": str(tiny_module),
        "engine": "tensorflow",
    }
    gcs.delete()


def start(gcs, flags, directory) -> None:
    """Does what Dataflow does when the launcher has ended."""
    job = Job.from_json(gcs.read(flags["template_location"]))
    StagedJob.read(gcs, job.environment).run(directory)


@pytest.mark.slow
def test_the_job_of_a_template_commits_its_wave_after_the_launcher_has_ended(gcs, flags, tmp_path, tiny_module, capsys):
    """Until then, it holds the lock. The next start goes on, and a template cannot be started twice."""
    out, flags = flags["output"], flags | {"wave_bytes": "1"}
    assert main([f"--{name}={value}" for name, value in flags.items()]) == 0
    line = f"the job of wave 00000 was written to {flags['template_location']}; the job commits the wave at its end"
    assert capsys.readouterr().out == f"{line}. Then start 3 more jobs, one after the other, for the rest\n"
    assert read_manifests(out) == ()
    text = r"is being written by the Dataflow job of wave 00000; wait for it to end, .* or take over with --steal_lock"
    with pytest.raises(OutputError, match=text):
        write_template(RunConfig.from_flags(**flags))

    start(gcs, flags, tmp_path / "first")
    assert [manifest.wave for manifest in read_manifests(out)] == ["00000"]
    assert not [path for path in gcs.paths(f"{out}/") if path.endswith("/lock.json") or "/staging/" in path]

    rest = flags | {"wave_bytes": "1GiB"}
    assert write_template(RunConfig.from_flags(**rest)).wave == "00001"
    start(gcs, flags, tmp_path / "second")
    report = verify(out)
    assert (report.rows, report.waves, report.problems, report.strays) == (4, 2, (), ())
    with pytest.raises(RuntimeError, match=PLAN):
        start(gcs, flags, tmp_path / "third")
    assert (verify(out).rows, verify(out).strays) == (4, ())

    written = write_template(RunConfig.from_flags(**flags))
    assert str(written) == "nothing new: all 4 records were done by earlier runs; no job was written"
    embed(flags["input"], tmp_path / "direct", tiny_module)
    assert read_vectors(out) == read_vectors(tmp_path / "direct")


@pytest.mark.slow
def test_a_run_that_takes_over_from_a_template_wins(gcs, flags, tmp_path):
    """The job fails, and changes nothing."""
    write_template(RunConfig.from_flags(**flags))
    embed(flags["input"], flags["output"], flags["module"], steal_lock=True)
    with pytest.raises(RuntimeError, match=PLAN):
        start(gcs, flags, tmp_path / "late")
    report = verify(flags["output"])
    assert (report.rows, report.waves, report.problems, report.strays) == (4, 1, (), ())


def test_a_template_needs_dataflow(tmp_path, tiny_module):
    (tmp_path / "photos.txt").write_text("a.jpg")
    flags = {"input": tmp_path / "photos.txt", "input_format": "list", "module": tiny_module}
    flags |= {"output": tmp_path / "out", "template_location": tmp_path / "job"}
    text = "^--runner=DirectRunner writes no template; expected DataflowRunner and --template_location$"
    with pytest.raises(UsageError, match=text):
        write_template(RunConfig.from_flags(**flags))


def test_a_template_has_no_summary(tmp_path):
    flags = {"input": "in", "module": "m", "output": tmp_path / "out", "template_location": tmp_path / "job"}
    with pytest.raises(UsageError, match=r"^template_location starts no job, so there is no summary; call pipeline\."):
        pipeline.run(RunConfig.from_flags(**flags))
