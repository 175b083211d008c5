"""The model file of a format that is one file with others beside it: `*.onnx`, or OpenVINO's `*.xml`."""

from __future__ import annotations

import re
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pipeline.core.errors import ModuleError
from pipeline.hub.copying import copy_file, unreadable
from pipeline.hub.handles.base import Request
from pipeline.hub.handles.http import download
from pipeline.hub.handles.local_archive import file_digest
from pipeline.hub.handles.local_path import existing_path, local_path
from pipeline.model_formats.base import CONFIGURATIONS
from pipeline.model_formats.registry import MODEL_FORMATS
from pipeline.savedmodel.module import Module
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat, has_file_system

_FORMATS = {".onnx": "onnx", ".xml": "openvino_ir"}

Fetch = Callable[[str, Path], None]
"""Copies a file, named relative to the directory of the model file, to this machine."""


class ModelFileHandle:
    """Copies the model file, the weights that it names and the configuration beside it to the cache."""

    accepts = "an .onnx or OpenVINO .xml file (local, gs:// or http(s)://)"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle ends with the name of a model file."""
        path = re.split("[?#]", handle, maxsplit=1)[0] if "://" in handle else handle
        return path.lower().endswith(tuple(_FORMATS))

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or copies its files."""
        handle = request.handle
        if handle.lower().startswith(("http://", "https://")):
            return _served(request)
        if local_path(handle) is not None:
            return _local(request)
        if not has_file_system(handle):
            raise request.not_found()
        return _remote(request)


def _served(request: Request) -> Module:
    def fetch(name: str, target: Path) -> None:
        download(_beside(request.handle, name), target, request.handle, expected=f"the file {name}")

    return _cached(request, ("http", request.handle), _name_of(request.handle), fetch)


def _local(request: Request) -> Module:
    path = existing_path(request)
    if path.is_dir():
        raise ModuleError(f"module {request.handle}: it is a directory, expected a file; give it another name")
    names = [path.name, *_companions(path), *_configurations(path)]
    digests = {name: file_digest(path.parent / name) for name in names if (path.parent / name).is_file()}

    def fetch(name: str, target: Path) -> None:
        if name not in digests:
            return
        shutil.copyfile(path.parent / name, target)
        if file_digest(target) != digests[name]:
            raise ModuleError(
                f"module {request.handle}: {name} changed while it was being read; try again when nothing writes to it"
            )

    return _cached(request, ("file", *sorted(digests.items())), path.name, fetch, tuple(digests))


def _remote(request: Request) -> Module:
    directory, _, name = request.handle.rpartition("/")
    # Of OpenVINO's models, and as exporters name the external data of ONNX.
    weights = (f"{name.rpartition('.')[0]}.bin", f"{name}.data", f"{name}_data")
    known = {other: _find_remote(f"{directory}/{other}") for other in (name, *weights, *CONFIGURATIONS)}
    if known[name] is None:
        raise request.not_found()

    def fetch(name: str, target: Path) -> None:
        if stat := known.get(name) or _find_remote(f"{directory}/{name}"):
            copy_file(stat, target)

    extras = tuple(name for name in CONFIGURATIONS if known[name])
    return _cached(request, ("remote", name, *known.values()), name, fetch, extras)


def _find_remote(path: str) -> FileStat | None:
    try:
        return filesystem.find_file(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _cached(
    request: Request, identity: tuple[object, ...], name: str, fetch: Fetch, extras: tuple[str, ...] = ()
) -> Module:
    """Returns a module from the cache; fetches the model file, then the files that it needs.

    Args:
      request: of the module.
      identity: of the module's files.
      name: of the model file.
      fetch: copies a file; leaves out a file that is not there.
      extras: further files to copy, by name.
    """

    def make(work: Path) -> Path:
        model = work / "module" / name
        model.parent.mkdir()
        fetch(name, model)
        for other in dict.fromkeys((*_companions(model), *extras)):
            target = model.parent / other
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                fetch(other, target)
            if not target.exists():
                raise ModuleError(
                    f"module {request.handle}: its weights are in {other}, which is missing; put the file beside {name}"
                )
        return model.parent

    return request.cached(("model file", *identity), make)


def _companions(path: Path) -> tuple[str, ...]:
    return MODEL_FORMATS[_FORMATS[path.suffix.lower()]].companions(path)


def _configurations(path: Path) -> tuple[str, ...]:
    return tuple(name for name in CONFIGURATIONS if (path.parent / name).is_file())


def _name_of(url: str) -> str:
    return PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def _beside(url: str, name: str) -> str:
    """Returns the address of a file in the directory of another one; the query, such as a token, stays."""
    parts = urllib.parse.urlsplit(url)
    directory = parts.path.rpartition("/")[0]
    return parts._replace(path=f"{directory}/{urllib.parse.quote(name)}").geturl()
