from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, FILES, contents, entries, graph, packed


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "M.TAR.GZ"])
@pytest.mark.parametrize("prefix", ["", "./", "mobilenet/", "./mobilenet/"])
def test_local_tarball(tmp_path: Path, cache: Path, name: str, prefix: str) -> None:
    (tmp_path / name).write_bytes(packed(prefix=prefix))
    module = resolve_module(str(tmp_path / name))
    assert module.sha256 == DIGEST
    assert contents(module) == FILES
    (entry,) = entries(cache)
    assert module.path == str(entry / "module")
    assert json.loads((entry / "origin.json").read_text()) == {"handle": str(tmp_path / name), "sha256": DIGEST}


def test_tarball_by_file_url(tarball: Path) -> None:
    assert resolve_module(tarball.as_uri()).sha256 == DIGEST


def test_tarball_is_unpacked_once(tarball: Path, tmp_path: Path) -> None:
    first = resolve_module(str(tarball))
    before = (Path(first.path) / "saved_model.pb").stat()
    copy = tmp_path / "copy.tgz"
    copy.write_bytes(tarball.read_bytes())
    assert resolve_module(str(copy)).path == first.path
    after = (Path(first.path) / "saved_model.pb").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_changed_tarball_is_another_module(tarball: Path) -> None:
    first = resolve_module(str(tarball))
    times = tarball.stat()
    tarball.write_bytes(packed({**FILES, "saved_model.pb": graph("2")}))
    os.utime(tarball, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resolve_module(str(tarball)).sha256 != first.sha256


def test_tarball_that_changes_meanwhile_is_not_stored(
    cache: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_directory = tempfile.mkdtemp

    def change_first(*args: Any, **kwargs: Any) -> str:
        tarball.write_bytes(packed({"saved_model.pb": graph("2")}))
        return make_directory(*args, **kwargs)

    monkeypatch.setattr(tempfile, "mkdtemp", change_first)
    with pytest.raises(
        ModuleError, match="the file changed while it was being read; try again when nothing writes to it"
    ):
        resolve_module(str(tarball))
    assert entries(cache) == []


def test_tarball_in_a_read_only_place_is_only_read(tarball: Path) -> None:
    beside = set(tarball.parent.iterdir())
    resolve_module(str(tarball))
    assert set(tarball.parent.iterdir()) - beside == {tarball.parent / "cache"}
