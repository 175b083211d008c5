from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, FILES, contents
from tests.hub.server import Server, answer

HANDLE = "kaggle:google/mobilenet-v2/tensorFlow2/050-160-feature-vector"
API = "/v1/models.ModelApiService"


def reply(content: dict[str, Any], status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    return answer(json.dumps(content).encode(), status, Content_Type="application/json")


@pytest.fixture
def kaggle(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """Kaggle's interface, as kagglehub asks it; without credentials."""
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url(""))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "kaggle"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_a_model_is_fetched_once(kaggle: Server, cache: Path) -> None:
    files = [{"name": name, "size": len(content)} for name, content in FILES.items()]
    kaggle.answers[f"{API}/GetModelInstance"] = [reply({"versionNumber": 3})]
    kaggle.answers[f"{API}/ListModelInstanceVersionFiles"] = [reply({"files": files, "nextPageToken": ""})]
    kaggle.answers[f"{API}/DownloadModelInstanceVersion"] = [send_file]
    module = resolve_module(HANDLE, sha256=DIGEST)
    assert contents(module) == FILES
    assert module.handle == HANDLE
    requests = len(kaggle.requests)
    assert resolve_module(HANDLE) == module
    assert len(kaggle.requests) == requests


def send_file(request: BaseHTTPRequestHandler) -> None:
    answer(FILES[request.body["path"]], Content_Type="application/octet-stream")(request)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            "Kaggle answered 403; the model needs an account or your consent; accept its terms on https://www.kaggle",
        ),
        (401, "Kaggle answered 401; the model needs an account or your consent"),
        (
            404,
            "Kaggle answered 404; there is no such model or version, or no longer; look at https://www.kaggle.com/mo",
        ),
    ],
)
def test_refusals(kaggle: Server, status: int, message: str) -> None:
    kaggle.answers[f"{API}/ListModelInstanceVersionFiles"] = [reply({"message": "no", "code": status}, status)]
    with pytest.raises(ModuleError, match=f"^module {HANDLE}/1: {message}") as caught:
        resolve_module(f"{HANDLE}/1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "google/mobilenet-v2", "google/mobilenet-v2/tensorFlow2/x/latest", "a/b/c/d/1/2"])
def test_malformed_names(name: str) -> None:
    with pytest.raises(ModuleError, match=rf"^module kaggle:{name}: not the name of a model; expected kaggle:OWNER"):
        resolve_module(f"kaggle:{name}")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "kagglehub":
            raise ImportError("No module named 'kagglehub'")
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleError, match=r"package kagglehub is not installed .*; pip install 'embedding-pipeline\["):
        resolve_module(f"{HANDLE}/1")
