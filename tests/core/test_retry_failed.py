"""`--retry_failed`, a flag that is a switch or has a value."""

import re

import pytest
import yaml

from pipeline.core.config import RunConfig
from pipeline.core.errors import UsageError
from pipeline.core.settings import ExecutionConfig

REQUIRED = {"input": "in", "module": "m", "output": "out"}
REQUIRED_ARGS = ["--input=in", "--module=m", "--output=out"]
FLAG = "argument --retry_failed/--no-retry_failed"


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ([], False),
        (["--retry_failed"], True),
        (["--retry_failed=http_timeout"], ("http_timeout",)),
        (["--retry_failed=http_timeout,http_503, empty"], ("http_timeout", "http_503", "empty")),
        (["--retry_failed=empty", "--no-retry_failed"], False),
        (["--retry_failed", "--quiet"], True),
    ],
)
def test_on_the_command_line(args, value):
    assert RunConfig.from_args([*REQUIRED_ARGS, *args]).execution.retry_failed == value


@pytest.mark.parametrize(
    ("given", "value"),
    [(True, True), (False, False), ("empty", ("empty",)), (["empty", "http_404"], ("empty", "http_404"))],
)
def test_in_python_and_in_a_file(tmp_path, given, value):
    assert RunConfig.from_flags(**REQUIRED, retry_failed=given).execution.retry_failed == value
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**REQUIRED, "retry_failed": given}))
    assert RunConfig.from_args([f"--config={tmp_path}/a.yaml"]).execution.retry_failed == value


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (
            "--retry_failed=http_timeuot",
            "argument --retry_failed/--no-retry_failed: 'http_timeuot' is no reason of",
        ),
        (
            "--retry_failed=empty,http",
            "argument --retry_failed/--no-retry_failed: 'http' is no reason of a failure;",
        ),
        ("--retry_failed=", "argument --retry_failed/--no-retry_failed: no reason of a failure arrived; expected"),
        ("--no-retry_failed=empty", "argument --no-retry_failed: takes no value"),
    ],
)
def test_reasons_that_are_none_are_refused_with_those_that_are(arg, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}") as caught:
        RunConfig.from_args([*REQUIRED_ARGS, arg])
    assert arg.startswith("--no") or "read_error,corrupt_record," in str(caught.value)
    with pytest.raises(UsageError, match=r"^'x' is no reason of a failure; expected some of read_error,"):
        ExecutionConfig(retry_failed=("x",))
