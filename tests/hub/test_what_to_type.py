"""The table of docs/modules.md: each row that is typed is a handle of the right kind, and each that is fed is known."""

import re

import pytest

from pipeline.core.settings import ModuleConfig, PreprocessConfig
from pipeline.hub.handles.registry import HANDLES
from tests.environments import REPOSITORY

PAGE = (REPOSITORY / "docs" / "modules.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.split("## What to type")[1].split("\n\n**")[0].splitlines()
    if line.startswith("| ")
][2:]


def kind_of(handle):
    return next(type(kind).__name__ for kind in HANDLES if kind.is_supported(handle))


def test_the_table_has_rows():
    assert len(ROWS) > 15
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("DIR", "LocalDirectoryHandle"),
        ("DIR/saved_model.pb", "LocalDirectoryHandle"),
        ("FILE.tar.gz", "LocalArchiveHandle"),
        ("google/imagenet/mobilenet_v2_050_160/feature_vector/1", "PublishedHandle"),
        ("https://tfhub.dev/google/imagenet/mobilenet_v2_050_160/feature_vector/1", "PublishedHandle"),
        ("https://example.com/module.tar.gz", "HttpHandle"),
        ("kaggle:OWNER/MODEL/FRAMEWORK/VARIATION", "KaggleHandle"),
        ("gs://bucket/module", "RemoteHandle"),
        ("untrained:mobilenet_v2_050_160", "UntrainedHandle"),
    ],
)
def test_kinds_of_handles(typed, kind):
    assert kind_of(typed) == kind


def test_the_table_names_flags_and_handles_that_there_are():
    typed = " ".join(row[1] for row in ROWS)
    for flag in re.findall(r"--(\w+)", typed):
        assert flag in {**ModuleConfig.__dataclass_fields__, **PreprocessConfig.__dataclass_fields__}
    handles = {kind_of(handle.replace("[/VERSION]", "")) for handle in re.findall(r"--module=([^` ]+)", typed)}
    kinds = ("LocalDirectory", "LocalArchive", "Kaggle", "ModelFile", "Untrained")
    assert handles >= {f"{kind}Handle" for kind in kinds}


@pytest.mark.parametrize(
    "handle",
    ["MODEL.onnx", "DIR/MODEL.xml", "https://example.com/onnx/model.onnx?download=true", "gs://bucket/model.onnx"],
)
def test_model_files(handle):
    assert kind_of(handle) == "ModelFileHandle"
