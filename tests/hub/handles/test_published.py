from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.handles import published
from pipeline.hub.handles.published import PublishedHandle
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, entries, packed, write_module
from tests.hub.server import Server, answer

NAME = "google/imagenet/mobilenet_v2_050_160/feature_vector/1"
PAGE = "https://www.kaggle.com/models/google/mobilenet-v2"
VARIATION = "tensorFlow2/050-160-feature-vector"


@pytest.fixture(autouse=True)
def services(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(published, "TF_HUB", server.url("/tfhub"))
    monkeypatch.setattr(published, "KAGGLE_API", server.url("/kaggle"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("handle", "is_supported"),
    [
        (NAME, True),
        (f"https://tfhub.dev/{NAME}", True),
        (f"http://tfhub.dev/{NAME}?tf-hub-format=compressed", True),
        (f"tfhub.dev/{NAME}", True),
        (f"{PAGE}/{VARIATION}/1", True),
        (f"www.kaggle.com/models/google/mobilenet-v2/{VARIATION}/1", True),
        (PAGE, True),
        ("https://www.kaggle.com/datasets/a/b", False),
        ("https://storage.googleapis.com/tfhub-test-modules/x/1.tar.gz", False),
        ("modules/mine", False),
        ("module/1.tar.gz", False),
        ("./google/imagenet/1", False),
        ("/google/imagenet/1", False),
        ("gs://bucket/google/1", False),
        ("untrained:mobilenet_v2_050_160", False),
    ],
)
def test_which_handles_are_published_ones(handle: str, is_supported: bool) -> None:
    assert PublishedHandle().is_supported(handle) == is_supported


def test_a_path_that_exists_is_no_published_name(tmp_path: Path, server: Server) -> None:
    write_module(tmp_path / NAME)
    assert resolve_module(NAME).path == str(tmp_path / NAME)
    assert server.requests == []


@pytest.mark.parametrize("handle", [NAME, f"https://tfhub.dev/{NAME}", f"tfhub.dev/{NAME}/"])
def test_tf_hub_redirects_to_the_archive(server: Server, cache: Path, handle: str) -> None:
    server.answers[f"/tfhub/{NAME}"] = [answer(b"", 302, Location=server.url("/bucket/1.tar.gz?signature=a"))]
    server.answers["/bucket/1.tar.gz"] = [answer(packed())]
    module = resolve_module(handle, sha256=DIGEST)
    assert module.handle == handle
    assert server.requests == [f"/tfhub/{NAME}?tf-hub-format=compressed", "/bucket/1.tar.gz?signature=a"]
    assert resolve_module(handle) == module
    assert len(server.requests) == 2
    assert len(entries(cache)) == 1


@pytest.mark.parametrize(
    "path",
    [
        f"{VARIATION}/1",
        f"{VARIATION}/1/",
        f"{VARIATION}/1?select=saved_model.pb",
        "frameworks/TensorFlow2/variations/050-160-feature-vector/versions/1",
    ],
)
def test_pages_of_kaggle(server: Server, path: str) -> None:
    address = f"/kaggle/google/mobilenet-v2/{VARIATION}/1/download"
    server.answers[address] = [answer(packed())]
    assert resolve_module(f"{PAGE}/{path}").sha256 == DIGEST
    assert server.requests == [f"{address}?tf-hub-format=compressed"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the page is that of all variations; expected the address of one, https://www.kaggle.com/models/OWNER"),
        (
            f"/{VARIATION}",
            f"the address has no version; append one, such as /1, or say --module=kaggle:.*{VARIATION},",
        ),
    ],
)
def test_pages_of_kaggle_that_show_no_version(server: Server, path: str, message: str) -> None:
    with pytest.raises(ModuleError, match=f"^module {PAGE}{path}: {message}"):
        resolve_module(PAGE + path)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "there is no such module or version, or no longer; look for it on https://www.kaggle.com/models "),
        (410, "there is no such module or version, or no longer"),
        (403, "the module may need an account or your consent; look for it on .* and say --module=kaggle:OWNER/MODEL"),
    ],
)
def test_refusals_of_tf_hub(server: Server, status: int, message: str) -> None:
    server.answers[f"/tfhub/{NAME}"] = [answer(b"", 302, Location=server.url("/elsewhere"))]
    server.answers["/elsewhere"] = [answer(b"", status)]
    start = rf"^module {NAME}: the server answered {status} \w+.* for {server.url('/tfhub')}/{NAME}, expected a \.tar"
    with pytest.raises(ModuleError, match=rf"{start}\.gz; {message}"):
        resolve_module(NAME)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (
            answer(b"", 403),
            "the server answered 403 Forbidden for .*; the model needs an account or your consent; accept",
        ),
        (answer(b"", 404), f"the server answered 404 Not Found for .*; there is no such model or .* look at {PAGE}$"),
        (
            answer(b"<!DOCTYPE html>consent"),
            rf"answered with a web page; the model needs .* accept its terms on {PAGE},",
        ),
    ],
)
def test_refusals_of_kaggle(server: Server, cache: Path, sent: object, message: str) -> None:
    handle = f"{PAGE}/{VARIATION}/1"
    server.answers[f"/kaggle/google/mobilenet-v2/{VARIATION}/1/download"] = [sent]  # type: ignore[list-item]
    with pytest.raises(ModuleError, match=f"^module {handle}: .*{message}") as caught:
        resolve_module(handle)
    assert "\n" not in str(caught.value)
    assert entries(cache) == []


def test_no_network(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "TF_HUB", "http://127.0.0.1:1")
    with pytest.raises(ModuleError, match=rf"^module {NAME}: .*refused, .*\(there is no path {NAME} either\)$"):
        resolve_module(NAME)
