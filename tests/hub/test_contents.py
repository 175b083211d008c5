from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.contents import choose_root, locate_module
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, FILES, packed, write_module

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("place", "others", "named"),
    [
        ("", [], ""),
        ("", ["README.md", "1/readme"], ""),
        ("", [], "saved_model.pb"),
        ("m", ["README.md", "._m", ".DS_Store", "__MACOSX/m/saved_model.pb", "PaxHeaders.7/saved_model.pb"], ""),
        ("1", ["README.md"], ""),
        ("models/tuned/00000123", ["notes/README.md", ".git/saved_model.pb"], ""),
    ],
)
def test_places_of_a_module(tmp_path: Path, place: str, others: list[str], named: str) -> None:
    path = tmp_path / "given"
    write_module(path / place)
    for name in others:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")
    assert locate_module(path / named, "m") == path / place
    if not others:
        assert resolve_module(str(path / named)).sha256 == DIGEST


def test_the_highest_of_numbered_versions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for version in ("9", "10", "1"):
        write_module(tmp_path / version)
    with caplog.at_level("INFO", "pipeline"):
        assert locate_module(tmp_path, "m") == tmp_path / "10"
    assert caplog.messages == ["module m: taking version 10 of 1, 10, 9"]


@pytest.mark.parametrize(
    ("roots", "message"),
    [
        (["a", "b"], "it holds several modules: a, b; name the directory of one$"),
        (["1", "b/2"], "it holds several modules: 1, b/2; name"),
        (["a", "1"], "it holds several modules: 1, a; name"),
        ([f"m{index}" for index in range(7)], "it holds several modules: m0, m1, m2, m3, m4 and more; name"),
        ([".hidden"], r"not a module, it holds no saved_model\.pb"),
    ],
)
def test_no_module_for_sure(roots: list[str], message: str) -> None:
    with pytest.raises(ModuleError, match=f"^module m: {message}"):
        choose_root(map(PurePosixPath, roots), "m")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.keras", b"PK\3\4", r"it is a model in Keras's own format; export it with keras\.saving\.load_model"),
        ("net.h5", b"\x89HDF\r\n\x1a\n", r"it is a model in Keras's own format"),
        ("weights", b"\x89HDF\r\n\x1a\n", r"it is a model in Keras's own format"),
        ("net.tflite", b"\0\0\0\0TFL3", "it is a TensorFlow Lite model; take the SavedModel"),
        ("frozen.pb", b"x", r"it is a graph without signatures; save it as a SavedModel"),
        ("saved_model.pbtxt", b"x", "it is a SavedModel in text format; load it with TensorFlow"),
        ("model.safetensors", b"x", "it is weights of PyTorch; export the model"),
        ("model.ckpt-7.index", b"x", "it is a TensorFlow checkpoint without a graph; export it"),
        ("module.zip", b"PK\3\4", "it is an archive of another kind; unpack it"),
        ("net.keras", POINTER, r"it is a pointer of Git LFS in the place of the file; run `git lfs pull`"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ModuleError, match=f"^module {file}: {message}"):
        resolve_module(str(file))
    inside = message.replace("it is", rf"it holds no saved_model\.pb; {name} is", 1)
    with pytest.raises(ModuleError, match=f"^module {tmp_path}: {inside}"):
        resolve_module(str(tmp_path))


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_module_with_a_pointer_of_git_lfs(tmp_path: Path, name: str) -> None:
    write_module(tmp_path, FILES | {name: POINTER})
    message = rf"^module {tmp_path}: {name} is a pointer of Git LFS in the place of the file; run `git lfs pull` in its"
    with pytest.raises(ModuleError, match=message):
        resolve_module(str(tmp_path))
    (tmp_path / "m.tar.gz").write_bytes(packed(FILES | {name: POINTER}))
    with pytest.raises(ModuleError, match=rf"{name} is a pointer of Git LFS"):
        resolve_module(str(tmp_path / "m.tar.gz"))


def test_an_archive_that_is_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(POINTER)
    with pytest.raises(ModuleError, match=r"it is a pointer of Git LFS in the place of the file; run `git lfs pull`"):
        resolve_module(str(tmp_path / "m.tar.gz"))


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_of_macos(tmp_path: Path, format_: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=format_) as writer:
        for name, content in {
            "./._ok": b"\0\5\x16\7",
            **{f"./ok/{name}": data for name, data in FILES.items()},
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = {"LIBARCHIVE.xattr.com.apple.provenance": "AQIA", "mtime": "1700000000.25"}
            writer.addfile(info, io.BytesIO(content))
        for leftover in ("./.DS_Store", "./__MACOSX/._ok", "./PaxHeaders.0/ok"):
            writer.addfile(tarfile.TarInfo(leftover))
    (tmp_path / "m.tar.gz").write_bytes(stream.getvalue())
    assert resolve_module(str(tmp_path / "m.tar.gz")).sha256 == DIGEST
