from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub import archive
from pipeline.hub.handles import http
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, FILES, contents, entries, graph, packed
from tests.hub.server import Server, answer, serve


def close_at_once(request: BaseHTTPRequestHandler) -> None:
    """Ends the connection without a word."""
    request.close_connection = True


CUT = answer(packed()[:100], Content_Length=str(len(packed())))


def test_plain_file_server(tmp_path: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    monkeypatch.chdir(tarball.parent)
    http = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    for _ in serve(http):
        module = resolve_module(f"http://127.0.0.1:{http.server_port}/m.tar.gz")
    assert module.sha256 == DIGEST
    assert contents(module) == FILES


def test_http_asks_for_the_tarball_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["/m.tar.gz"] = [answer(packed())]
    with caplog.at_level(logging.INFO, "pipeline"):
        first, *others = [resolve_module(server.url("/m.tar.gz")) for _ in range(3)]
    assert others == [first, first]
    assert server.requests == ["/m.tar.gz?tf-hub-format=compressed"]
    assert server.user_agents == {"embedding-pipeline"}
    assert [record.getMessage() for record in caplog.records] == [f"Fetching module {server.url('/m.tar.gz')}"]


def test_query_of_the_address_is_kept(server: Server) -> None:
    server.answers["/m.tar.gz"] = [answer(packed())]
    resolve_module(server.url("/m.tar.gz?signature=a%2Fb&x=1#part"))
    assert server.requests == ["/m.tar.gz?signature=a%2Fb&x=1"]


def test_server_that_sends_no_length(server: Server) -> None:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(packed())

    server.answers["/m.tar.gz"] = [send]
    assert resolve_module(server.url("/m.tar.gz")).sha256 == DIGEST


def test_redirect_is_followed(server: Server) -> None:
    server.answers["/a"] = [answer(b"", 302, Location=server.url("/b.tar.gz"))]
    server.answers["/b.tar.gz"] = [answer(packed())]
    assert resolve_module(server.url("/a")).sha256 == DIGEST


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1:1/x", "data:,x"])
def test_redirect_to_anything_else_is_refused(server: Server, target: str) -> None:
    server.answers["/m.tar.gz"] = [answer(b"", 302, Location=target)]
    with pytest.raises(ModuleError, match=r"302 Found - Redirection to url|unknown url type: ftp"):
        resolve_module(server.url("/m.tar.gz"))


def test_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url("/"))
    server.answers["http://modules.invalid/m.tar.gz"] = [answer(packed())]
    assert resolve_module("http://modules.invalid/m.tar.gz").sha256 == DIGEST


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([answer(b"", 503), answer(packed())], 2),
        ([CUT, answer(b"", 500), answer(packed())], 3),
        ([close_at_once, CUT, answer(packed())], 3),
    ],
)
def test_passing_failures_are_tried_again(
    server: Server, answers: list[Callable[[BaseHTTPRequestHandler], None]], requests: int
) -> None:
    server.answers["/m.tar.gz"] = list(answers)
    assert resolve_module(server.url("/m.tar.gz")).sha256 == DIGEST
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("sent", "message", "requests"),
    [
        (answer(b"", 404), r"the server answered 404 Not Found, expected a \.tar\.gz; check the address", 1),
        (answer(b"", 403), "the server answered 403 Forbidden", 1),
        (answer(b"", 503), r"the server answered 503 .* \(3 attempts\), expected a \.tar\.gz; try again later", 3),
        (CUT, rf"the connection ended after 100 of {len(packed()):,} bytes \(3 attempts\)", 3),
        (close_at_once, r"the connection was lost \(.*\) \(3 attempts\)", 3),
        (answer(b"<!DOCTYPE html>", Content_Type="text/html"), r"it starts with b'<!DOCTYPE html>' \(a web page", 1),
        (answer(packed(), Content_Length="many"), "invalid literal", 1),
        (answer(packed({"readme": b""})), "not a module, it holds no saved_model.pb", 1),
    ],
)
def test_unusable_http_answer(
    server: Server, cache: Path, sent: Callable[[BaseHTTPRequestHandler], None], message: str, requests: int
) -> None:
    server.answers["/m.tar.gz"] = [sent]
    with pytest.raises(ModuleError, match=rf"^module {server.url('/m.tar.gz')}: {message}") as caught:
        resolve_module(server.url("/m.tar.gz"))
    assert "\n" not in str(caught.value)
    assert len(server.requests) == requests
    assert entries(cache) == []


def test_silent_server_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_TIMEOUT_S", 0.05)
    released = threading.Event()
    server.answers["/m.tar.gz"] = [lambda request: released.wait() and None]
    try:
        with pytest.raises(ModuleError, match="timed out, expected a server that answers"):
            resolve_module(server.url("/m.tar.gz"))
    finally:
        released.set()


def test_oversized_download_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 50)
    server.answers["/m.tar.gz"] = [answer(packed())]
    with pytest.raises(ModuleError, match="it has more than 50 bytes, the limit for a module"):
        resolve_module(server.url("/m.tar.gz"))


def test_nobody_listens() -> None:
    unused = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    unused.server_close()
    with pytest.raises(ModuleError, match=r"Connection refused, expected a server that answers with a \.tar\.gz"):
        resolve_module(f"http://127.0.0.1:{unused.server_port}/m.tar.gz")


@pytest.mark.parametrize("url", ["http://[", "http://", "https://:1x/", "http://127.0.0.1:1/a b.tar.gz", "http://é é/"])
def test_malformed_address(url: str) -> None:
    with pytest.raises(ModuleError, match=r"expected a server that answers with a \.tar\.gz; check the address"):
        resolve_module(url)


def test_changed_address_is_fetched_again_for_another_digest(server: Server, cache: Path) -> None:
    server.answers["/m.tar.gz"] = [answer(packed({"saved_model.pb": graph("0")})), answer(packed())]
    old = resolve_module(server.url("/m.tar.gz"))
    assert resolve_module(server.url("/m.tar.gz")) == old
    new = resolve_module(server.url("/m.tar.gz"), sha256=DIGEST)
    assert contents(new) == FILES
    assert resolve_module(server.url("/m.tar.gz")) == new
    assert len(server.requests) == 2
    with pytest.raises(ModuleError, match=f"is {DIGEST}, expected {old.sha256}"):
        resolve_module(server.url("/m.tar.gz"), sha256=old.sha256)
    assert resolve_module(server.url("/m.tar.gz")) == new
    assert len(entries(cache)) == 1
