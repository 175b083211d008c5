"""Handles of ONNX and OpenVINO files, and of directories and tarballs that hold one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.resolve import resolve_module
from pipeline.savedmodel.digest import module_digest
from tests.gcs_emulator import GcsEmulator
from tests.hub.modules import contents, packed
from tests.hub.server import serve
from tests.model_formats.models import VIT, write_ir, write_onnx


def test_a_file_brings_its_weights_and_its_configuration_and_nothing_else(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m" / "net.onnx", external="net.onnx.data")
    (path.parent / "preprocessor_config.json").write_text("{}")
    (path.parent / "net_fp16.onnx").write_bytes(b"another")
    module = resolve_module(str(path))
    assert (module.format, module.model_file, module.handle) == ("onnx", "net.onnx", str(path))
    assert sorted(contents(module)) == ["net.onnx", "net.onnx.data", "preprocessor_config.json"]
    assert resolve_module(f"file://{path}", sha256=module.sha256).path == module.path
    data = path.parent / "net.onnx.data"
    data.write_bytes(bytes(reversed(data.read_bytes())))
    assert resolve_module(str(path)).sha256 != module.sha256


def test_openvinos_files_belong_together(tmp_path: Path) -> None:
    path = write_ir(tmp_path / "m" / "net.xml", write_onnx(tmp_path / "source.onnx"))
    module = resolve_module(str(path))
    assert (module.format, sorted(contents(module))) == ("openvino_ir", ["net.bin", "net.xml"])
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModuleError, match=r"its weights are in net\.bin, which is missing; put the file beside net\."):
        resolve_module(str(path))


def test_a_directory_is_used_in_place() -> None:
    module = resolve_module(str(VIT.parent))
    assert (module.path, module.model_file) == (str(VIT.parent), "model.onnx")
    assert module.sha256 == module_digest(VIT.parent)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/one.onnx", "any.onnx"])
def test_the_file_of_a_directory(tmp_path: Path, name: str) -> None:
    write_onnx(tmp_path / "m" / name)
    assert resolve_module(str(tmp_path / "m")).model_file == name


def test_one_of_several_files_must_have_the_usual_name(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_onnx(tmp_path / "m" / name)
    with pytest.raises(ModuleError, match=r"several models \(a\.onnx, b\.onnx\), expected one; name the file itself"):
        resolve_module(str(tmp_path / "m"))
    write_onnx(tmp_path / "m" / "model.onnx")
    assert resolve_module(str(tmp_path / "m")).model_file == "model.onnx"


def test_a_saved_model_comes_first(tmp_path: Path, tiny_module: Path) -> None:
    write_onnx(tmp_path / "m" / "model.onnx")
    (tmp_path / "m" / "saved_model.pb").write_bytes((tiny_module / "saved_model.pb").read_bytes())
    assert resolve_module(str(tmp_path / "m")).format == "tf2"


@pytest.mark.parametrize("prefix", ["./", "net-1.0/"])
def test_a_tarball(tmp_path: Path, prefix: str) -> None:
    path = write_onnx(tmp_path / "m" / "net.onnx")
    (tmp_path / "m.tar.gz").write_bytes(packed({"net.onnx": path.read_bytes()}, prefix))
    module = resolve_module(str(tmp_path / "m.tar.gz"))
    assert (module.format, list(contents(module))) == ("onnx", ["net.onnx"])


def test_a_store(gcs: GcsEmulator, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m" / "net.onnx", external="weights/net.data")
    for file in (path, path.parent / "weights" / "net.data"):
        gcs.write(f"gs://bucket/models/{file.relative_to(path.parent)}", file.read_bytes())
    gcs.write("gs://bucket/models/preprocessor_config.json", b"{}")
    gcs.write("gs://bucket/models/other.bin", b"other")
    module = resolve_module("gs://bucket/models/net.onnx")
    assert sorted(contents(module)) == ["net.onnx", "preprocessor_config.json", "weights/net.data"]
    assert resolve_module("gs://bucket/models").format == "onnx"
    with pytest.raises(ModuleError, match=r"module gs://bucket/models/no\.onnx: not found, expected"):
        resolve_module("gs://bucket/models/no.onnx")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the files in `tmp_path`."""
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    for _ in serve(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_server(address: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "a b" / "net.onnx", external="net.onnx_data")
    module = resolve_module(f"{address}/a%20b/net.onnx?token=x")
    assert sorted(contents(module)) == ["net.onnx", "net.onnx_data"]
    (tmp_path / "a b" / "net.onnx_data").unlink()
    with pytest.raises(ModuleError, match=r"answered 404 .*/net\.onnx_data, expected the file net\.onnx_data; check"):
        resolve_module(f"{address}/a%20b/net.onnx")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "m.onnx", r"is not an ONNX model: it has no graph; fetch it again"),
        (
            b"version https://git-lfs.",
            "m.onnx",
            r"is a pointer of Git LFS in the place of the file; run `git lfs pull`",
        ),
        (b"<html>", "m.onnx", r"is not an ONNX model, or it is damaged; fetch it again"),
        (b"<net", "m.xml", r"is not an OpenVINO model, or it is damaged: .*; fetch it again"),
        (b"<a/>", "m.xml", r"is not an OpenVINO model: its first element is <a>, expected <net>"),
    ],
)
def test_other_bytes(tmp_path: Path, content: bytes, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "m.bin").touch()
    with pytest.raises(ModuleError, match=message):
        resolve_module(str(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModuleError, match=r"module no\.onnx: not found, expected"):
        resolve_module("no.onnx")


def test_weights_that_are_missing(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", external="net.data")
    (tmp_path / "net.data").unlink()
    with pytest.raises(ModuleError, match=r"its weights are in net\.data, which is missing; put the file beside net"):
        resolve_module(str(path))


def test_numbered_versions_and_folders_of_other_things(tmp_path: Path) -> None:
    write_onnx(tmp_path / "m" / "1" / "model.onnx")
    write_onnx(tmp_path / "m" / "2" / "model.onnx")
    (tmp_path / "m" / "annotations").mkdir()
    (tmp_path / "m" / "annotations" / "a.xml").write_text("<a/>")
    assert resolve_module(str(tmp_path / "m")).path == str(tmp_path / "m" / "2")


def test_a_pointer_in_a_directory_is_named(tmp_path: Path) -> None:
    write_ir(tmp_path / "m" / "net.xml", write_onnx(tmp_path / "source.onnx"))
    (tmp_path / "m" / "net.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModuleError, match=r"net\.bin is a pointer of Git LFS in the place of the file; run `git"):
        resolve_module(str(tmp_path / "m"))


def test_a_yaml_beside_the_file_comes_along(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m" / "net.onnx")
    (path.parent / "preprocess.yaml").write_text("preset: clip")
    assert sorted(contents(resolve_module(str(path)))) == ["net.onnx", "preprocess.yaml"]


def test_files_that_macos_leaves_are_no_models(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx")
    (tmp_path / "._net.onnx").write_bytes(b"left")
    assert resolve_module(str(path.parent)).model_file == "net.onnx"
