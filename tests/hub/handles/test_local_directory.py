from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.module import read_module
from tests.hub.modules import DIGEST, entries, packed, write_module


def test_local_directory_is_used_in_place(tmp_path: Path, cache: Path) -> None:
    root = write_module(tmp_path / "m")
    assert resolve_module(str(root)) == read_module(str(root))
    assert read_module(str(root)).sha256 == DIGEST
    assert not cache.exists()


@pytest.mark.parametrize(
    "handle", ["m", "./m", "m/", "~/m", "file://{home}/m", "file://localhost{home}/m", "file://{home}/%6D"]
)
def test_ways_to_name_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handle: str) -> None:
    write_module(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    handle = handle.format(home=tmp_path)
    assert resolve_module(handle) == read_module(str(tmp_path / "m"), handle=handle, sha256=DIGEST)


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("nowhere", "module nowhere: not found, expected a local directory, .* or untrained:NAME; check its spelling"),
        ("nowhere.tar.gz", "module nowhere.tar.gz: not found, expected"),
        ("~no such user/m", "not found, expected"),
        ("a\0b", "not found, expected"),
        ("", "module '': no such kind of handle, expected a local directory, a local .tar.gz"),
        ("ftp://bucket/m", "module 'ftp://bucket/m': no such kind of handle, expected .* a gs:// directory or .tar.gz"),
        ("file://server/m", "no such kind of handle"),
        ("n" * 300, "File name too long.*; expected files that can be read"),
        ("notes.txt", "module notes.txt: it is a file of another kind, expected saved_model.pb, a .tar.gz or a dire"),
        ("notes.txt/m", "not found, expected"),
        ("empty", "module empty: not a module, it holds no saved_model.pb; expected a TF Hub module or a SavedModel"),
        ("empty.tgz", "Is a directory"),
        ("text.tar.gz", "module text.tar.gz: it starts with b'hello', expected a gzip-compressed tar file"),
        ("other.tar.gz", "module other.tar.gz: not a module, it holds no saved_model.pb"),
        ("two.tar.gz", "module two.tar.gz: it holds several modules: a, b; name the directory of one"),
        ("cut.tar.gz", "module cut.tar.gz: the compressed data ends too early"),
        ("escape.tar.gz", r"module escape.tar.gz: '\.\./x' is a path with '\.\.'"),
    ],
)
def test_unusable_local_handle(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, handle: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    Path("text.tar.gz").write_text("hello")
    Path("empty").mkdir()
    Path("empty.tgz").mkdir()
    Path("other.tar.gz").write_bytes(packed({"variables/variables.index": b""}, ""))
    Path("two.tar.gz").write_bytes(packed({"a/saved_model.pb": b"", "b/saved_model.pb": b""}, ""))
    Path("cut.tar.gz").write_bytes(packed()[:-20])
    Path("escape.tar.gz").write_bytes(packed({"saved_model.pb": b"", "../x": b""}, ""))
    with pytest.raises(ModuleError, match=message) as caught:
        resolve_module(handle)
    assert "\n" not in str(caught.value)
    assert not cache.exists() or entries(cache) == []
