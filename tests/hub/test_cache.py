from __future__ import annotations

import gzip
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError
from pipeline.hub.cache import cache_directory
from pipeline.hub.resolve import resolve_module
from tests.hub.modules import DIGEST, FILES, contents, entries, graph, packed


def test_cache_dir_argument(tmp_path: Path, cache: Path, tarball: Path) -> None:
    module = resolve_module(str(tarball), cache_dir=tmp_path / "other")
    assert Path(module.path).is_relative_to(tmp_path / "other")
    assert not cache.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs knows the directories of other systems")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TFHUB_CACHE_DIR": "/tfhub"}, "/tfhub"),
        ({"TFHUB_CACHE_DIR": "~/tfhub"}, "/home/me/tfhub"),
        ({"TFHUB_CACHE_DIR": ""}, "/home/me/.cache/embedding-pipeline/modules"),
        ({}, "/home/me/.cache/embedding-pipeline/modules"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/embedding-pipeline/modules"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/embedding-pipeline/modules"),
    ],
)
def test_cache_directory(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("TFHUB_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(expected)


def test_cache_directory_must_be_local(tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/cache")
    with pytest.raises(ModuleError, match=r"^TFHUB_CACHE_DIR is gs://bucket/cache, expected a local directory; set it"):
        resolve_module(str(tarball))


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("TFHUB_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ModuleError, match=r"no cache directory for modules \(could not .*; set TFHUB_CACHE_DIR"):
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
    module = resolve_module(str(tarball))
    (entry,) = entries(cache)
    damage(entry)
    assert resolve_module(str(tarball)) == module
    assert contents(module) == FILES
    assert resolve_module(str(tarball)) == module


def test_damage_is_reported(cache: Path, tarball: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = resolve_module(str(tarball))
    assert caplog.records == []
    (Path(module.path) / "saved_model.pb").write_bytes(b"grapH")
    resolve_module(str(tarball))
    assert "is damaged: its SHA-256 is" in caplog.text


def test_cache_where_a_file_is(cache: Path, tarball: Path) -> None:
    cache.touch()
    expected = (
        rf"^module .*m\.tar\.gz: it cannot be stored in the cache directory {cache} \(File exists\), .*TFHUB_CACHE_DIR"
    )
    with pytest.raises(ModuleError, match=expected):
        resolve_module(str(tarball))


def test_read_only_cache(cache: Path, tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = resolve_module(str(tarball))

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert resolve_module(str(tarball)) == module
    tarball.write_bytes(packed({"saved_model.pb": graph("2")}))
    with pytest.raises(
        ModuleError, match=rf"cache directory {cache} \(Read-only file system\), .* set TFHUB_CACHE_DIR"
    ):
        resolve_module(str(tarball))


RESOLVE = """
import sys
from pipeline.hub.resolve import resolve_module

module = resolve_module(sys.argv[1])
print(module.path, module.sha256)
"""


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
        (Path(resolve_module(str(tarball)).path) / "saved_model.pb").write_bytes(b"grapH")
    code = "import pipeline.hub.resolve; print('ready', flush=True); input();" + RESOLVE
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
    assert contents(resolve_module(str(tarball))) == FILES


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
    module = resolve_module(str(tarball))
    assert contents(module) == FILES
    assert module.sha256 == DIGEST
    assert left.exists()  # it may belong to a process that is still at work
    two_days_ago = left.stat().st_mtime - 2 * 24 * 60 * 60
    os.utime(left, (two_days_ago, two_days_ago))
    tarball.write_bytes(gzip.compress(gzip.decompress(tarball.read_bytes()), compresslevel=1))
    resolve_module(str(tarball))
    assert len(entries(cache)) == 2
