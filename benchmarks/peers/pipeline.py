"""This project's pipeline, on the DirectRunner. Options: flags of `pipeline.run`."""

from benchmarks.task import Task
from pipeline import RunConfig
from pipeline import run as run_pipeline


def run(task: Task) -> None:
    flags = {"engine": "openvino", "key_feature": "id", **task.options}
    if "direct_running_mode" not in flags:
        flags["runner"] = "DirectRunner"
    config = RunConfig.from_flags(
        input=list(task.files),
        module=task.module,
        signature=task.signature,
        output_key=task.output_key,
        output=task.output,
        **flags,
    )
    run_pipeline(config)
