from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from pipeline.savedmodel.module import Module


def graph(version: str) -> bytes:
    """Returns a `saved_model.pb` that has an empty graph for either format; another version has other bytes."""
    text = version.encode()
    info = b"\x0a" + bytes([len(text)]) + text
    graphs = [b"\x0a" + bytes([len(tagged)]) + tagged for tagged in (info, info + b"\x22\x05serve")]
    return b"".join(b"\x12" + bytes([len(encoded)]) + encoded for encoded in graphs)


FILES = {
    "saved_model.pb": graph("1"),
    "tfhub_module.pb": b"\x08\x03",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": bytes(range(256)) * 40,
}
# SHA-256 of 8-byte length + path + 8-byte length + content, file by file; computed apart from the code.
DIGEST = "30a2b0cee823738bbde6caf5c2bfd822907fe1b706cf4b8b3b0cdb92f32a1653"


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


def contents(module: Module) -> dict[str, bytes]:
    root = Path(module.path)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def entries(cache: Path) -> list[Path]:
    """Returns the cache's entries; nothing else may be in it."""
    found = sorted(cache.iterdir())
    assert all(re.fullmatch("module-[0-9a-f]{64}", path.name) for path in found)
    return found
