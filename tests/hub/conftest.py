from pathlib import Path

import pytest

from pipeline.hub.handles import http
from tests.hub.modules import packed


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http, "_RETRY_WAITS_S", (0.0, 0.0))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "m.tar.gz"
    path.write_bytes(packed())
    return path
