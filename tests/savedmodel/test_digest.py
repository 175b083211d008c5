from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ModuleError
from pipeline.savedmodel.digest import module_digest
from tests.hub.modules import DIGEST, write_module


def test_digest_golden(tmp_path: Path) -> None:
    assert module_digest(write_module(tmp_path / "m")) == DIGEST
    assert module_digest(str(tmp_path / "m")) == DIGEST


def digest_by_definition(files: dict[bytes, bytes]) -> str:
    parts = [part for name in sorted(files) for part in (name, files[name])]
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(st.from_regex(r"(d[.-]?/){0,2}f[a-zé.-]{0,3}", fullmatch=True), st.binary(max_size=50), max_size=5)
)
def test_digest_is_as_documented(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    directory = tmp_path_factory.mktemp("module")
    write_module(directory, files)
    (directory / "empty").mkdir()
    assert module_digest(directory) == digest_by_definition({name.encode(): files[name] for name in files})


def test_digest_sorts_whole_paths_as_bytes(tmp_path: Path) -> None:
    names = ["a/b", "a-b", "a.b", "B", "é", "z", ".hidden"]
    write_module(tmp_path / "m", {name: name.encode() for name in names})
    assert module_digest(tmp_path / "m") == digest_by_definition({name.encode(): name.encode() for name in names})


def test_digest_of_large_file(tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    write_module(tmp_path / "m", {"f": content})
    assert module_digest(tmp_path / "m") == digest_by_definition({b"f": content})


def test_digest_of_name_that_is_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"x")
    assert module_digest(tmp_path) == digest_by_definition({b"\xff": b"x"})


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "saved_model.pb").write_bytes(b"graph"),
        lambda root: (root / "saved_model.pb").rename(root / "saved_model.pbx"),
        lambda root: (root / ".extra").touch(),
        lambda root: (root / "tfhub_module.pb").unlink(),
    ],
)
def test_digest_sees_every_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = write_module(tmp_path / "m")
    change(root)
    assert module_digest(root) != DIGEST


def test_digest_follows_links_to_files_only(tmp_path: Path) -> None:
    root = write_module(tmp_path / "m")
    (root / "saved_model.pb").rename(tmp_path / "elsewhere")
    (root / "saved_model.pb").symlink_to(tmp_path / "elsewhere")
    assert module_digest(root) == DIGEST
    (root / "loop").symlink_to(root)
    with pytest.raises(ModuleError, match="'loop' is neither a file nor a directory, expected nothing else"):
        module_digest(root)


def test_digest_refuses_pipes_and_dangling_links(tmp_path: Path) -> None:
    os.mkfifo(write_module(tmp_path / "a") / "pipe")
    with pytest.raises(ModuleError, match="'pipe' is neither a file nor a directory"):
        module_digest(tmp_path / "a")
    (write_module(tmp_path / "b") / "gone").symlink_to("nowhere")
    with pytest.raises(ModuleError, match="'gone' is neither a file nor a directory"):
        module_digest(tmp_path / "b")


def test_digest_of_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match=r"No such file or directory.*; expected files that can be read"):
        module_digest(tmp_path / "none")
