from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.mobilenet
from pipeline.core.errors import ModuleError
from pipeline.hub import fetch
from pipeline.hub.cache import ResolvedModule, cache_directory
from pipeline.hub.handles import resolve
from pipeline.savedmodel.digest import module_digest
from tests.gcs_emulator import GcsEmulator, gcs_emulator

FILES = {
    "saved_model.pb": b"graph",
    "tfhub_module.pb": b"\x08\x03",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": bytes(range(256)) * 40,
}
# SHA-256 of 8-byte length + path + 8-byte length + content, file by file; computed apart from the code.
DIGEST = "ec880983346b74d0dc40ef88c94785ce16e111bc6034e01d5bbf3a53d0159dfb"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "_RETRY_WAITS_S", (0.0, 0.0))


def write_module(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def packed(files: dict[str, bytes] = FILES, prefix: str = "./") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def contents(module: ResolvedModule) -> dict[str, bytes]:
    root = Path(module.path)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def entries(cache: Path) -> list[Path]:
    """Returns the cache's entries; nothing else may be in it."""
    found = sorted(cache.iterdir())
    assert all(re.fullmatch("module-[0-9a-f]{64}", path.name) for path in found)
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "m.tar.gz"
    path.write_bytes(packed())
    return path


# The digest


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
        lambda root: (root / "saved_model.pb").write_bytes(b"grapH"),
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


# Local handles


def test_local_directory_is_used_in_place(tmp_path: Path, cache: Path) -> None:
    root = write_module(tmp_path / "m")
    assert resolve(str(root)) == ResolvedModule(handle=str(root), path=str(root), sha256=DIGEST)
    assert not cache.exists()


@pytest.mark.parametrize(
    "handle", ["m", "./m", "m/", "~/m", "file://{home}/m", "file://localhost{home}/m", "file://{home}/%6D"]
)
def test_ways_to_name_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handle: str) -> None:
    write_module(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    handle = handle.format(home=tmp_path)
    assert resolve(handle) == ResolvedModule(handle, str(tmp_path / "m"), DIGEST)


@pytest.mark.parametrize("name", ["m.tar.gz", "m.tgz", "M.TAR.GZ"])
@pytest.mark.parametrize("prefix", ["", "./", "mobilenet/", "./mobilenet/"])
def test_local_tarball(tmp_path: Path, cache: Path, name: str, prefix: str) -> None:
    (tmp_path / name).write_bytes(packed(prefix=prefix))
    module = resolve(str(tmp_path / name))
    assert module.sha256 == DIGEST
    assert contents(module) == FILES
    (entry,) = entries(cache)
    assert module.path == str(entry / "module")
    assert json.loads((entry / "origin.json").read_text()) == {"handle": str(tmp_path / name), "sha256": DIGEST}


def test_tarball_by_file_url(tarball: Path) -> None:
    assert resolve(tarball.as_uri()).sha256 == DIGEST


def test_tarball_is_unpacked_once(tarball: Path, tmp_path: Path) -> None:
    first = resolve(str(tarball))
    before = (Path(first.path) / "saved_model.pb").stat()
    copy = tmp_path / "copy.tgz"
    copy.write_bytes(tarball.read_bytes())
    assert resolve(str(copy)).path == first.path
    after = (Path(first.path) / "saved_model.pb").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_changed_tarball_is_another_module(tarball: Path) -> None:
    first = resolve(str(tarball))
    times = tarball.stat()
    tarball.write_bytes(packed({**FILES, "saved_model.pb": b"GRAPH"}))
    os.utime(tarball, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resolve(str(tarball)).sha256 != first.sha256


def test_tarball_that_changes_meanwhile_is_not_stored(
    cache: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_directory = tempfile.mkdtemp

    def change_first(*args: Any, **kwargs: Any) -> str:
        tarball.write_bytes(packed({"saved_model.pb": b"another"}))
        return make_directory(*args, **kwargs)

    monkeypatch.setattr(tempfile, "mkdtemp", change_first)
    with pytest.raises(
        ModuleError, match="the file changed while it was being read; try again when nothing writes to it"
    ):
        resolve(str(tarball))
    assert entries(cache) == []


def test_tarball_in_a_read_only_place_is_only_read(tarball: Path) -> None:
    beside = set(tarball.parent.iterdir())
    resolve(str(tarball))
    assert set(tarball.parent.iterdir()) - beside == {tarball.parent / "cache"}


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("nowhere", "module nowhere: not found, expected a local directory, .* or untrained:NAME; check its spelling"),
        ("nowhere.tar.gz", "module nowhere.tar.gz: not found, expected"),
        ("~no such user/m", "not found, expected"),
        ("a\0b", "not found, expected"),
        ("", "module '': no such kind of handle, expected a local directory, a local .tar.gz"),
        ("s3://bucket/m", "module 's3://bucket/m': no such kind of handle, expected .* a gs:// directory or .tar.gz"),
        ("file://server/m", "no such kind of handle"),
        ("n" * 300, "File name too long.*; expected files that can be read"),
        ("notes.txt", "module notes.txt: it is a file of another kind, expected a local directory, a local .tar.gz"),
        ("notes.txt/m", "not found, expected"),
        ("empty", "module empty: not a module, it holds no saved_model.pb; expected a TF Hub module or a SavedModel"),
        ("empty.tgz", "Is a directory"),
        ("text.tar.gz", "module text.tar.gz: it starts with b'hello', expected a gzip-compressed tar file"),
        ("other.tar.gz", "module other.tar.gz: not a module, it holds no saved_model.pb"),
        ("two.tar.gz", "module two.tar.gz: not a module, it holds no saved_model.pb"),
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
        resolve(handle)
    assert "\n" not in str(caught.value)
    assert not cache.exists() or entries(cache) == []


# The digest that is asked for


def test_expected_digest_holds(tmp_path: Path, tarball: Path) -> None:
    root = write_module(tmp_path / "m")
    assert resolve(str(root), sha256=DIGEST).sha256 == DIGEST
    assert resolve(str(tarball), sha256=f" {DIGEST.upper()}\n").sha256 == DIGEST
    assert resolve(str(tarball), sha256=DIGEST).sha256 == DIGEST


@pytest.mark.parametrize("is_cached", [False, True])
def test_other_digest_is_refused_and_not_stored(tmp_path: Path, cache: Path, tarball: Path, is_cached: bool) -> None:
    if is_cached:
        resolve(str(tarball))
    for handle in (str(tarball), str(write_module(tmp_path / "m"))):
        with pytest.raises(ModuleError, match=f"its SHA-256 is {DIGEST}, expected {'0' * 64}; check where it comes"):
            resolve(handle, sha256="0" * 64)
    assert len(entries(cache)) == is_cached


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, DIGEST + "0"])
def test_malformed_digest_is_refused(tarball: Path, sha256: str) -> None:
    with pytest.raises(ModuleError, match=f"was given as '{sha256}', expected 64 hexadecimal digits; copy them"):
        resolve(str(tarball), sha256=sha256)


# HTTP


class Server:
    """Serves what `answers` gives for a path, the n-th time the n-th answer, then the last one again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Callable[[BaseHTTPRequestHandler], None]]] = {}
        self.requests: list[str] = []
        self.user_agents: set[str | None] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                server.user_agents.add(self.headers["User-Agent"])
                answers = server.answers[self.path.partition("?")[0]]
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


def serve(http: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    for _ in serve(made.http):
        yield made


def answer(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return send


def close_at_once(request: BaseHTTPRequestHandler) -> None:
    """Ends the connection without a word."""
    request.close_connection = True


CUT = answer(packed()[:100], Content_Length=str(len(packed())))


def test_plain_file_server(tmp_path: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    monkeypatch.chdir(tarball.parent)
    http = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    for _ in serve(http):
        module = resolve(f"http://127.0.0.1:{http.server_port}/m.tar.gz")
    assert module.sha256 == DIGEST
    assert contents(module) == FILES


def test_http_asks_for_the_tarball_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["/m.tar.gz"] = [answer(packed())]
    with caplog.at_level(logging.INFO, "pipeline"):
        modules = {resolve(server.url("/m.tar.gz")) for _ in range(3)}
    assert len(modules) == 1
    assert server.requests == ["/m.tar.gz?tf-hub-format=compressed"]
    assert server.user_agents == {"embedding-pipeline"}
    assert [record.getMessage() for record in caplog.records] == [f"Fetching module {server.url('/m.tar.gz')}"]


def test_query_of_the_address_is_kept(server: Server) -> None:
    server.answers["/m.tar.gz"] = [answer(packed())]
    resolve(server.url("/m.tar.gz?signature=a%2Fb&x=1#part"))
    assert server.requests == ["/m.tar.gz?signature=a%2Fb&x=1"]


def test_server_that_sends_no_length(server: Server) -> None:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(packed())

    server.answers["/m.tar.gz"] = [send]
    assert resolve(server.url("/m.tar.gz")).sha256 == DIGEST


def test_redirect_is_followed(server: Server) -> None:
    server.answers["/a"] = [answer(b"", 302, Location=server.url("/b.tar.gz"))]
    server.answers["/b.tar.gz"] = [answer(packed())]
    assert resolve(server.url("/a")).sha256 == DIGEST


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1:1/x", "data:,x"])
def test_redirect_to_anything_else_is_refused(server: Server, target: str) -> None:
    server.answers["/m.tar.gz"] = [answer(b"", 302, Location=target)]
    with pytest.raises(ModuleError, match=r"302 Found - Redirection to url|unknown url type: ftp"):
        resolve(server.url("/m.tar.gz"))


def test_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url("/"))
    server.answers["http://modules.invalid/m.tar.gz"] = [answer(packed())]
    assert resolve("http://modules.invalid/m.tar.gz").sha256 == DIGEST


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
    assert resolve(server.url("/m.tar.gz")).sha256 == DIGEST
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
        resolve(server.url("/m.tar.gz"))
    assert "\n" not in str(caught.value)
    assert len(server.requests) == requests
    assert entries(cache) == []


def test_silent_server_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.05)
    released = threading.Event()
    server.answers["/m.tar.gz"] = [lambda request: released.wait() and None]
    try:
        with pytest.raises(ModuleError, match="timed out, expected a server that answers"):
            resolve(server.url("/m.tar.gz"))
    finally:
        released.set()


def test_oversized_download_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 50)
    server.answers["/m.tar.gz"] = [answer(packed())]
    with pytest.raises(ModuleError, match="it has more than 50 bytes, the limit for a module"):
        resolve(server.url("/m.tar.gz"))


def test_nobody_listens() -> None:
    unused = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    unused.server_close()
    with pytest.raises(ModuleError, match=r"Connection refused, expected a server that answers with a \.tar\.gz"):
        resolve(f"http://127.0.0.1:{unused.server_port}/m.tar.gz")


@pytest.mark.parametrize("url", ["http://[", "http://", "https://:1x/", "http://127.0.0.1:1/a b.tar.gz", "http://é é/"])
def test_malformed_address(url: str) -> None:
    with pytest.raises(ModuleError, match=r"expected a server that answers with a \.tar\.gz; check the address"):
        resolve(url)


def test_changed_address_is_fetched_again_for_another_digest(server: Server, cache: Path) -> None:
    server.answers["/m.tar.gz"] = [answer(packed({"saved_model.pb": b"old"})), answer(packed())]
    old = resolve(server.url("/m.tar.gz"))
    assert resolve(server.url("/m.tar.gz")) == old
    new = resolve(server.url("/m.tar.gz"), sha256=DIGEST)
    assert contents(new) == FILES
    assert resolve(server.url("/m.tar.gz")) == new
    assert len(server.requests) == 2
    with pytest.raises(ModuleError, match=f"is {DIGEST}, expected {old.sha256}"):
        resolve(server.url("/m.tar.gz"), sha256=old.sha256)
    assert resolve(server.url("/m.tar.gz")) == new
    assert len(entries(cache)) == 1


# untrained:


def test_untrained_is_built_once_for_name_and_version(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    built: list[str] = []

    def build(name: str, directory: Path) -> None:
        built.append(name)
        write_module(directory, {"saved_model.pb": name.encode()})

    fake: Any = ModuleType("pipeline.mobilenet.untrained")
    fake.build, fake.VERSION = build, "1"
    monkeypatch.setitem(sys.modules, "pipeline.mobilenet.untrained", fake)
    monkeypatch.setattr(pipeline.mobilenet, "untrained", fake, raising=False)
    first = resolve("untrained:mobilenet_v2_050_160")
    assert contents(first) == {"saved_model.pb": b"mobilenet_v2_050_160"}
    assert resolve("untrained:mobilenet_v2_050_160") == first
    resolve("untrained:mobilenet_v2_035_96")
    assert built == ["mobilenet_v2_050_160", "mobilenet_v2_035_96"]
    fake.VERSION = "2"
    again = resolve("untrained:mobilenet_v2_050_160")
    assert built == ["mobilenet_v2_050_160", "mobilenet_v2_035_96", "mobilenet_v2_050_160"]
    assert again.path != first.path
    assert again.sha256 == first.sha256


# gs://


@pytest.fixture(scope="module")
def gcs_module() -> Iterator[GcsEmulator]:
    with gcs_emulator() as emulator:
        yield emulator


@pytest.fixture
def gcs(gcs_module: GcsEmulator) -> Iterator[GcsEmulator]:
    yield gcs_module
    gcs_module.delete()


@pytest.mark.parametrize("slash", ["", "/"])
def test_gs_directory(gcs: GcsEmulator, cache: Path, slash: str) -> None:
    for name, content in FILES.items():
        gcs.write(f"gs://bucket/modules/m/{name}", content)
    gcs.write("gs://bucket/modules/m/assets/", b"")
    gcs.write("gs://bucket/modules/m2/saved_model.pb", b"another module")
    module = resolve(f"gs://bucket/modules/m{slash}", sha256=DIGEST)
    assert contents(module) == FILES
    assert resolve(f"gs://bucket/modules/m{slash}") == module
    gcs.write("gs://bucket/modules/m/saved_model.pb", b"GRAPH")
    assert contents(resolve(f"gs://bucket/modules/m{slash}"))["saved_model.pb"] == b"GRAPH"
    assert len(entries(cache)) == 2


def test_gs_tarball(gcs: GcsEmulator) -> None:
    gcs.write("gs://bucket/m.tar.gz", packed())
    module = resolve("gs://bucket/m.tar.gz", sha256=DIGEST)
    assert contents(module) == FILES
    assert resolve("gs://bucket/m.tar.gz") == module


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("gs://bucket/none", "module gs://bucket/none: not found, expected a local directory, .* a gs:// directory"),
        ("gs://bucket/none.tar.gz", "not found, expected"),
        ("gs://no-such-bucket/m", "NotFound: .*; expected an object that can be read; check the path"),
        ("gs://", "module 'gs://': no such kind of handle"),
        ("gs://bucket/m*", r"it holds a wildcard, expected one directory or \.tar\.gz"),
        ("gs://bucket/other", "not a module, it holds no saved_model.pb"),
        ("gs://bucket/page.tar.gz", r"it starts with b'<html>' \(a web page\?\)"),
    ],
)
def test_unusable_gs_handle(gcs: GcsEmulator, handle: str, message: str) -> None:
    gcs.write("gs://bucket/other/readme", b"")
    gcs.write("gs://bucket/page.tar.gz", b"<html>")
    with pytest.raises(ModuleError, match=message) as caught:
        resolve(handle)
    assert "\n" not in str(caught.value)


def test_gs_limits(gcs: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("saved_model.pb", "b", "c"):
        gcs.write(f"gs://bucket/m/{name}", b"12345")
    monkeypatch.setattr(fetch, "MAX_BYTES", 14)
    with pytest.raises(ModuleError, match="it has more than 14 bytes, the limit for a module"):
        resolve("gs://bucket/m")
    monkeypatch.setattr(fetch, "MAX_FILES", 2)
    with pytest.raises(ModuleError, match="it has more than 2 files, the limit for a module"):
        resolve("gs://bucket/m")


# The cache


def test_cache_dir_argument(tmp_path: Path, cache: Path, tarball: Path) -> None:
    module = resolve(str(tarball), cache_dir=tmp_path / "other")
    assert Path(module.path).is_relative_to(tmp_path / "other")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"TFHUB_CACHE_DIR": "/tfhub"}, "/tfhub"),
        ("linux", {"TFHUB_CACHE_DIR": "~/tfhub"}, "/home/me/tfhub"),
        ("linux", {"TFHUB_CACHE_DIR": ""}, "/home/me/.cache/embedding-pipeline/modules"),
        ("linux", {}, "/home/me/.cache/embedding-pipeline/modules"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/embedding-pipeline/modules"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/embedding-pipeline/modules"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/me/Library/Caches/embedding-pipeline/modules"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/embedding-pipeline/modules"),
        ("win32", {}, "/home/me/AppData/Local/embedding-pipeline/modules"),
    ],
)
def test_cache_directory(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("TFHUB_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_directory() == Path(expected)


def test_cache_directory_must_be_local(tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/cache")
    with pytest.raises(ModuleError, match=r"^TFHUB_CACHE_DIR is gs://bucket/cache, expected a local directory; set it"):
        resolve(str(tarball))


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TFHUB_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ModuleError, match=r"no cache directory for modules \(Could not .*; set TFHUB_CACHE_DIR"):
        cache_directory()


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "module" / "saved_model.pb").write_bytes(b"grapH"),
        lambda entry: (entry / "module" / "variables" / "variables.index").unlink(),
        lambda entry: (entry / "module" / "extra").touch(),
        lambda entry: (entry / "module" / "loop").symlink_to(entry),
        lambda entry: (entry / "origin.json").unlink(),
        lambda entry: (entry / "origin.json").write_bytes(b""),
        lambda entry: (entry / "origin.json").write_text("[]"),
        lambda entry: (entry / "origin.json").write_text("{}"),
        lambda entry: (entry / "module").rename(entry / "elsewhere"),
        lambda entry: entry.rename(entry.with_name("away")) and entry.touch(),
    ],
)
def test_damaged_entry_is_made_anew(cache: Path, tarball: Path, damage: Callable[[Path], object]) -> None:
    module = resolve(str(tarball))
    (entry,) = entries(cache)
    damage(entry)
    assert resolve(str(tarball)) == module
    assert contents(module) == FILES
    assert resolve(str(tarball)) == module


def test_damage_is_reported(cache: Path, tarball: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = resolve(str(tarball))
    assert caplog.records == []
    (Path(module.path) / "saved_model.pb").write_bytes(b"grapH")
    resolve(str(tarball))
    assert "is damaged: its SHA-256 is" in caplog.text


def test_cache_where_a_file_is(cache: Path, tarball: Path) -> None:
    cache.touch()
    expected = (
        rf"^module .*m\.tar\.gz: it cannot be stored in the cache directory {cache} \(File exists\), .*TFHUB_CACHE_DIR"
    )
    with pytest.raises(ModuleError, match=expected):
        resolve(str(tarball))


def test_read_only_cache(cache: Path, tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = resolve(str(tarball))

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert resolve(str(tarball)) == module
    tarball.write_bytes(packed({"saved_model.pb": b"another"}))
    with pytest.raises(
        ModuleError, match=rf"cache directory {cache} \(Read-only file system\), .* set TFHUB_CACHE_DIR"
    ):
        resolve(str(tarball))


# Several processes

RESOLVE = "import sys; from pipeline.hub.handles import resolve; m = resolve(sys.argv[1]); print(m.path, m.sha256)"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_disk_that_refuses_to_write(cache: Path, tarball: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
    process = python(limit + RESOLVE, str(tarball))
    _, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(rf"CacheError: .* cache directory {cache} \(File too large\), expected free space", errors)
    assert entries(cache) == []


@pytest.mark.parametrize("state", ["empty", "damaged"])
def test_eight_processes_at_once(cache: Path, tarball: Path, state: str) -> None:
    if state == "damaged":
        (Path(resolve(str(tarball)).path) / "saved_model.pb").write_bytes(b"grapH")
    code = "import pipeline.hub.handles; print('ready', flush=True); input();" + RESOLVE
    processes = [python(code, str(tarball)) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = {(process.communicate()[0], process.returncode) for process in processes}
    (entry,) = entries(cache)
    assert outputs == {(f"{entry / 'module'} {DIGEST}\n", 0)}
    assert contents(resolve(str(tarball))) == FILES


@pytest.mark.parametrize(
    ("event", "path_end", "is_published"),
    [
        ("open", "work/unpacked.tar", False),
        ("open", "unpacked/saved_model.pb", False),
        ("open", "unpacked/variables/variables.data-00000-of-00001", False),
        ("os.rename", "work/unpacked", False),
        ("open", "entry/module/variables/variables.index", False),
        ("open", "entry/origin.json", False),
        ("os.rename", "/entry", False),
        ("shutil.rmtree", "", True),
    ],
)
def test_kill_leaves_a_whole_entry_or_none(
    cache: Path, tarball: Path, event: str, path_end: str, is_published: bool
) -> None:
    kill = f"""
import os, signal, sys
def hook(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({path_end!r}):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""
    process = python(kill + RESOLVE, str(tarball))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(cache.glob("module-*"))) == is_published
    (left,) = cache.glob(".embedding-pipeline-partial-*")
    module = resolve(str(tarball))
    assert contents(module) == FILES
    assert module.sha256 == DIGEST
    assert left.exists()  # it may belong to a process that is still at work
    two_days_ago = left.stat().st_mtime - 2 * 24 * 60 * 60
    os.utime(left, (two_days_ago, two_days_ago))
    tarball.write_bytes(gzip.compress(gzip.decompress(tarball.read_bytes()), compresslevel=1))
    resolve(str(tarball))
    assert len(entries(cache)) == 2


def test_import_is_light() -> None:
    heavy = "import sys, pipeline.hub.handles; print({'tensorflow', 'apache_beam', 'numpy'} & set(sys.modules))"
    assert python(heavy).communicate()[0] == "set()\n"
