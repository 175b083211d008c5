from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.handles import registry
from pipeline.hub.handles.base import Request
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import Module
from tests.hub.modules import DIGEST, FILES, contents, entries, write_module


def test_expected_digest_holds(tmp_path: Path, tarball: Path) -> None:
    root = write_module(tmp_path / "m")
    assert resolve_module(str(root), sha256=DIGEST).sha256 == DIGEST
    assert resolve_module(str(tarball), sha256=f" {DIGEST.upper()}\n").sha256 == DIGEST
    assert resolve_module(str(tarball), sha256=DIGEST).sha256 == DIGEST


@pytest.mark.parametrize("is_cached", [False, True])
def test_other_digest_is_refused_and_not_stored(tmp_path: Path, cache: Path, tarball: Path, is_cached: bool) -> None:
    if is_cached:
        resolve_module(str(tarball))
    for handle in (str(tarball), str(write_module(tmp_path / "m"))):
        with pytest.raises(ModuleError, match=f"its SHA-256 is {DIGEST}, expected {'0' * 64}; check where it comes"):
            resolve_module(handle, sha256="0" * 64)
    assert len(entries(cache)) == is_cached


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, DIGEST + "0"])
def test_malformed_digest_is_refused(tarball: Path, sha256: str) -> None:
    with pytest.raises(ModuleError, match=f"was given as '{sha256}', expected 64 hexadecimal digits; copy them"):
        resolve_module(str(tarball), sha256=sha256)


class ToyHandle:
    """The directory `NAME` of one place, as `toy:NAME`."""

    accepts = "toy:NAME"

    def __init__(self, place: Path) -> None:
        self.place = place

    def is_supported(self, handle: str) -> bool:
        return handle.startswith("toy:")

    def __call__(self, request: Request) -> Module:
        source = self.place / request.handle.removeprefix("toy:")
        if not source.is_dir():
            raise request.not_found()
        return request.cached(("toy", str(source)), lambda work: shutil.copytree(source, work / "module"))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "HANDLES", (ToyHandle(tmp_path), *registry.HANDLES))
    return write_module(tmp_path / "m")


def test_a_new_kind_of_handle_is_one_class_and_one_registration(toy: Path, cache: Path) -> None:
    module = resolve_module("toy:m", sha256=DIGEST)
    assert (module.handle, module.format, contents(module)) == ("toy:m", "tf1_hub", FILES)
    assert [Path(module.path).parent] == entries(cache)
    with pytest.raises(ModuleError, match=f"its SHA-256 is {DIGEST}, expected {'0' * 64}"):
        resolve_module("toy:m", sha256="0" * 64)
    with pytest.raises(ModuleError, match=r"module toy:n: not found, expected .* untrained:NAME or toy:NAME; check"):
        resolve_module("toy:n")
    with pytest.raises(ModuleError, match=r"no such kind of handle, expected .* untrained:NAME or toy:NAME; check"):
        resolve_module("tyo:m://")


def test_what_is_resolved_is_also_read(tmp_path: Path) -> None:
    root = write_module(tmp_path / "m", {"saved_model.pb": b"\xff"})
    with pytest.raises(ModuleError, match=r"m is not a module: its saved_model\.pb is damaged; fetch it again"):
        resolve_module(str(root))


def test_import_is_light() -> None:
    heavy = "import sys, pipeline.hub.resolve; print({'tensorflow', 'apache_beam', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "set()\n"
