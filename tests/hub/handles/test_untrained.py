from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pipeline.mobilenet
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import contents, graph, write_module


def test_untrained_is_built_once_for_name_and_version(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    built: list[str] = []

    def build(name: str, directory: Path) -> None:
        built.append(name)
        write_module(directory, {"saved_model.pb": graph(name)})

    fake: Any = ModuleType("pipeline.mobilenet.untrained")
    fake.build, fake.VERSION = build, "1"
    monkeypatch.setitem(sys.modules, "pipeline.mobilenet.untrained", fake)
    monkeypatch.setattr(pipeline.mobilenet, "untrained", fake, raising=False)
    first = resolve_module("untrained:mobilenet_v2_050_160")
    assert contents(first) == {"saved_model.pb": graph("mobilenet_v2_050_160")}
    assert resolve_module("untrained:mobilenet_v2_050_160") == first
    resolve_module("untrained:mobilenet_v2_035_96")
    assert built == ["mobilenet_v2_050_160", "mobilenet_v2_035_96"]
    fake.VERSION = "2"
    again = resolve_module("untrained:mobilenet_v2_050_160")
    assert built == ["mobilenet_v2_050_160", "mobilenet_v2_035_96", "mobilenet_v2_050_160"]
    assert again.path != first.path
    assert again.sha256 == first.sha256
