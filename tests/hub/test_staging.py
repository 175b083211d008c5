from pathlib import Path

import pytest

from pipeline.core.errors import ModuleError, UsageError
from pipeline.hub.resolve import resolve_module
from pipeline.hub.staging import stage_module
from pipeline.savedmodel.digest import module_digest
from pipeline.storage import filesystem
from tests.gcs_emulator import GcsEmulator
from tests.hub.modules import graph

FILES = {"saved_model.pb": graph("1"), "variables/variables.index": b"index", "variables/variables.data": bytes(999)}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "module" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "module"


@pytest.fixture(params=["local", "gs"])
def location(request: pytest.FixtureRequest, tmp_path: Path, gcs: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    if request.param == "local":
        return str(tmp_path / "temp")
    return f"gs://bucket/{tmp_path.name}/temp"


def stage(module: Path, location: str) -> str:
    return stage_module(str(module), module_digest(module), location)


def test_a_worker_finds_the_module_by_its_handle_and_digest(module, location):
    staged = stage(module, location)
    assert staged == f"{location}/modules/{module_digest(module)}"
    found = resolve_module(staged, sha256=module_digest(module))
    assert found.sha256 == module_digest(module)
    assert {name: Path(found.path, name).read_bytes() for name in FILES} == FILES


def test_files_are_copied_in_pieces(module, location, monkeypatch):
    write, sizes = filesystem.write_atomically, []

    def record(path, data):
        chunks = list(data)
        sizes.extend(map(len, chunks))
        write(path, chunks)

    monkeypatch.setattr(filesystem, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(filesystem, "write_atomically", record)
    resolve_module(stage(module, location), sha256=module_digest(module))
    assert sizes.count(100) == 9
    assert max(sizes) == 100


def test_a_module_is_copied_once(module, location, monkeypatch):
    staged = stage(module, location)
    written = []
    monkeypatch.setattr(filesystem, "write_atomically", lambda path, data: written.append(path))
    assert stage(module, location) == staged
    assert written == []


def test_an_interrupted_copy_is_no_module_and_is_completed(module, location, monkeypatch):
    write, written = filesystem.write_atomically, []

    def write_twice(path, data):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(filesystem, "write_atomically", write_twice)
    with pytest.raises(KeyboardInterrupt):
        stage(module, location)
    staged = f"{location}/modules/{module_digest(module)}"
    with pytest.raises(ModuleError, match=r"not a module, it holds no saved_model\.pb"):
        resolve_module(staged)

    monkeypatch.setattr(filesystem, "write_atomically", lambda path, data: (written.append(path), write(path, data)))
    assert stage(module, location) == staged
    assert written[2:] == [f"{staged}/saved_model.pb"]
    assert resolve_module(staged, sha256=module_digest(module)).sha256 == module_digest(module)


def test_a_worker_refuses_what_was_changed_on_the_way(module, location):
    staged = stage(module, location)
    filesystem.write_atomically(f"{staged}/variables/variables.index", b"INDEX")
    with pytest.raises(ModuleError, match=f"its SHA-256 is [0-9a-f]{{64}}, expected {module_digest(module)}"):
        resolve_module(staged, sha256=module_digest(module))


def test_a_relative_location_is_made_absolute(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stage(module, "temp") == f"{tmp_path}/temp/modules/{module_digest(module)}"


def test_a_location_that_cannot_be_written(module, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the module cannot be copied to --temp_location=\S+/file: .*expected a dir"):
        stage(module, str(tmp_path / "file"))
