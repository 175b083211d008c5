"""Runs one SDK worker of Apache Beam in this environment and in this process.

A runner starts this program for `--environment_type=PROCESS`, with the arguments that it passes to Beam's containers,
in which a program in Go plays this part. This one starts no other process and repeats nothing, so whoever kills it
kills the worker. It ends with the process that started it. It installs nothing: a job that brings packages is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROVISION_TIMEOUT_S = 60
PARENT_POLL_S = 0.5


def parse_args(args: list[str]) -> argparse.Namespace:
    """Returns the arguments of the container contract."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    for name in ("logging", "artifact", "control"):
        parser.add_argument(f"--{name}_endpoint", default="")
    # Prism quotes values as for a shell.
    return parser.parse_args([re.sub(r"^(--\w+=)(['\"])(.*)\2$", r"\1\3", arg) for arg in args])


def log_to_file(directory: str, worker_id: str) -> None:
    """Sends the standard output and error to a file; Java's runners drop both."""
    name = f"sdk-worker-{re.sub(r'[^A-Za-z0-9_.-]', '_', worker_id)}-{os.getpid()}.log"
    with open(os.path.join(directory, name), "ab") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)


def end_with_parent(parent: int) -> None:
    """Ends this process as soon as its parent is another one."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def provision_info(endpoint: str, worker_id: str) -> Any:
    """Returns the answer of the runner's provision service, a ProvisionInfo."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        return (
            beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            .GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=(("worker_id", worker_id),),
                timeout=PROVISION_TIMEOUT_S,
                wait_for_ready=True,
            )
            .info
        )


def staged_names(info: Any) -> list[str]:
    """Returns the names of the files that the job brings for its workers, except a list of packages for the log."""
    from apache_beam.portability.api import beam_runner_api_pb2

    payloads = [artifact.role_payload for artifact in info.dependencies]
    names = [beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(payload).staged_name for payload in payloads]
    return [name for name in names if name != "submission_environment_dependencies.txt"]


def worker_environment(args: argparse.Namespace, info: Any) -> Mapping[str, str]:
    """Returns the environment variables that Beam's worker reads."""
    from google.protobuf import json_format, text_format

    def endpoint(name: str) -> str:
        from apache_beam.portability.api import endpoints_pb2

        url = getattr(info, f"{name}_endpoint").url or getattr(args, f"{name}_endpoint")
        return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))

    variables = {
        "WORKER_ID": args.id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "LOGGING_API_SERVICE_DESCRIPTOR": endpoint("logging"),
        "CONTROL_API_SERVICE_DESCRIPTOR": endpoint("control"),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "JOB_ID": info.metadata.get("job_id", ""),
        "JOB_NAME": info.metadata.get("job_name", ""),
    }
    if info.status_endpoint.url:
        variables["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.status_endpoint)
    return variables


def main(arguments: list[str]) -> None:
    """Runs the worker until the runner ends it."""
    end_with_parent(os.getppid())
    args = parse_args(arguments)
    if "SDK_WORKER_LOGS" in os.environ:
        log_to_file(os.environ["SDK_WORKER_LOGS"], args.id)
    info = provision_info(args.provision_endpoint, args.id)
    if names := staged_names(info):
        sys.exit(f"error: the job brings {', '.join(names)}; install it on the workers instead")
    os.environ.update(worker_environment(args, info))
    sys.path.insert(0, str(REPOSITORY))

    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


if __name__ == "__main__":
    main(sys.argv[1:])
