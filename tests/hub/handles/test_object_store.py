from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub import archive
from pipeline.hub.handles import object_store
from pipeline.hub.resolve import resolve_module
from tests.gcs_emulator import GcsEmulator, gcs_emulator
from tests.hub.modules import DIGEST, FILES, contents, entries, graph, packed


@pytest.fixture(scope="module")
def gcs_module() -> Iterator[GcsEmulator]:
    with gcs_emulator() as emulator:
        yield emulator


@pytest.fixture
def gcs(gcs_module: GcsEmulator) -> Iterator[GcsEmulator]:
    yield gcs_module
    gcs_module.delete()


@pytest.mark.parametrize("slash", ["", "/"])
def test_remote_directory(gcs: GcsEmulator, cache: Path, slash: str) -> None:
    for name, content in FILES.items():
        gcs.write(f"gs://bucket/modules/m/{name}", content)
    gcs.write("gs://bucket/modules/m/assets/", b"")
    gcs.write("gs://bucket/modules/m2/saved_model.pb", graph("2"))
    module = resolve_module(f"gs://bucket/modules/m{slash}", sha256=DIGEST)
    assert contents(module) == FILES
    assert resolve_module(f"gs://bucket/modules/m{slash}") == module
    gcs.write("gs://bucket/modules/m/saved_model.pb", graph("2"))
    assert contents(resolve_module(f"gs://bucket/modules/m{slash}"))["saved_model.pb"] == graph("2")
    assert len(entries(cache)) == 2


def test_remote_tarball(gcs: GcsEmulator) -> None:
    gcs.write("gs://bucket/m.tar.gz", packed())
    module = resolve_module("gs://bucket/m.tar.gz", sha256=DIGEST)
    assert contents(module) == FILES
    assert resolve_module("gs://bucket/m.tar.gz") == module


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("gs://bucket/none", "module gs://bucket/none: not found, expected a local directory, .* a gs:// directory"),
        ("gs://bucket/none.tar.gz", "not found, expected"),
        ("gs://no-such-bucket/m", "NotFound: .*; expected an object that can be read; check the path"),
        ("gs://", "module 'gs://': no such kind of handle"),
        ("gs://bucket/m*", r"it holds a wildcard, expected one directory or \.tar\.gz"),
        ("gs://bucket/other", "not a module, it holds no saved_model.pb"),
        ("hdfs://server/m", r"module hdfs://server/m/: \w+: .*; expected an object that can be read; check the path"),
        ("gs://bucket/page.tar.gz", r"it starts with b'<html>' \(a web page\?\)"),
    ],
)
def test_unusable_remote_handle(gcs: GcsEmulator, handle: str, message: str) -> None:
    gcs.write("gs://bucket/other/readme", b"")
    gcs.write("gs://bucket/page.tar.gz", b"<html>")
    with pytest.raises(ModuleError, match=message) as caught:
        resolve_module(handle)
    assert "\n" not in str(caught.value)


def test_remote_limits(gcs: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("saved_model.pb", "b", "c"):
        gcs.write(f"gs://bucket/m/{name}", b"12345")
    monkeypatch.setattr(archive, "MAX_BYTES", 14)
    with pytest.raises(ModuleError, match="it has more than 14 bytes, the limit for a module"):
        resolve_module("gs://bucket/m")
    monkeypatch.setattr(object_store, "MAX_FILES", 2)
    with pytest.raises(ModuleError, match="it has more than 2 files, the limit for a module"):
        resolve_module("gs://bucket/m")
