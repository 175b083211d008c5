"""Module handles: from what a user names to a directory on this machine, once, in the launcher."""

from __future__ import annotations

import hashlib
import logging
import os.path
import re
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.core.errors import ModuleError
from pipeline.hub import archive, fetch
from pipeline.hub.cache import ModuleCache, ResolvedModule, cache_directory
from pipeline.savedmodel.digest import SAVED_MODEL, check_digest, check_module, module_digest, not_a_module

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")


def resolve(handle: str, *, sha256: str | None = None, cache_dir: Path | None = None) -> ResolvedModule:
    """Finds, fetches or makes a module.

    A local directory is used in place; everything else goes through the cache. An `http(s)://` address is taken
    to be immutable, as tensorflow_hub takes it: once fetched, its module comes from the cache until the entry is
    deleted or another `sha256` is asked for. A local tarball is known by its content, and `gs://` objects by path,
    size and time of change.

    Args:
      handle: a local directory (also `~/…` and `file://…`), a local `.tar.gz` or `.tgz`, the `http(s)://` address
        of a `.tar.gz`, a `gs://` directory or tarball, or `untrained:NAME`.
      sha256: the digest that the module must have, whatever kind of handle it is.
      cache_dir: takes the place of `cache_directory()`.

    Raises:
      ModuleError: there is no such kind of handle; there is no module; it cannot be fetched, unpacked or stored;
        or its digest is not `sha256`.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise ModuleError(
            f"module {handle}: its SHA-256 was given as {sha256!r}, expected 64 hexadecimal digits; copy them from "
            "`python -m pipeline.hub describe`"
        )
    for resolver in _RESOLVERS:
        if resolver.is_supported(handle):
            try:
                return resolver(_Request(handle, sha256, cache_dir))
            except OSError as error:
                raise ModuleError(
                    f"module {handle}: {error}; expected files that can be read; check the path and its permissions"
                ) from error
    raise ModuleError(f"module {handle!r}: no such kind of handle, expected {_accepted()}; check its spelling")


@dataclass(frozen=True, slots=True)
class _Request:
    handle: str
    sha256: str | None
    cache_dir: Path | None

    def cached(self, identity: tuple[object, ...], make: Callable[[Path], Path]) -> ResolvedModule:
        cache = ModuleCache((self.cache_dir or cache_directory()).absolute())
        return cache.get(self.handle, identity, make, self.sha256)


class _Resolver(Protocol):
    """Takes one kind of handle, which `accepts` describes."""

    accepts: str

    def is_supported(self, handle: str) -> bool: ...

    def __call__(self, request: _Request) -> ResolvedModule: ...


class _Untrained:
    accepts = "untrained:NAME"

    def is_supported(self, handle: str) -> bool:
        return handle.startswith("untrained:")

    def __call__(self, request: _Request) -> ResolvedModule:
        from pipeline.mobilenet import untrained

        name = request.handle.removeprefix("untrained:")

        def make(work: Path) -> Path:
            untrained.build(name, work / "module")
            return work / "module"

        resolved = request.cached(("untrained", untrained.VERSION, name), make)
        _log.warning(
            "WARNING: %s has random weights. Its vectors are for trying out this pipeline, and mean nothing.",
            request.handle,
        )
        return resolved


class _Http:
    accepts = "the http(s):// address of a .tar.gz"

    def is_supported(self, handle: str) -> bool:
        return handle.lower().startswith(("http://", "https://"))

    def __call__(self, request: _Request) -> ResolvedModule:
        def make(work: Path) -> Path:
            fetch.download(request.handle, work / "archive")
            return _unpack(work / "archive", work, request.handle)

        return request.cached(("http", request.handle), make)


class _Gcs:
    accepts = "a gs:// directory or .tar.gz"

    def is_supported(self, handle: str) -> bool:
        return re.match("gs://[^/]", handle) is not None

    def __call__(self, request: _Request) -> ResolvedModule:
        is_archive = request.handle.lower().endswith(_ARCHIVE_SUFFIXES)
        location = request.handle if is_archive else request.handle.rstrip("/") + "/"
        objects = fetch.list_gcs(location)
        if not objects:
            raise _not_found(request.handle)
        if not is_archive and location + SAVED_MODEL not in {found.path for found in objects}:
            raise not_a_module(request.handle)

        def make(work: Path) -> Path:
            if is_archive:
                fetch.copy_gcs(objects[0], work / "archive")
                return _unpack(work / "archive", work, request.handle)
            for source in objects:
                name = source.path.removeprefix(location)
                target = work / "module" / archive.safe_path(name, request.handle)
                target.parent.mkdir(parents=True, exist_ok=True)
                fetch.copy_gcs(source, target)
            return work / "module"

        return request.cached(("gs", *objects), make)


class _LocalArchive:
    accepts = "a local .tar.gz or .tgz"

    def is_supported(self, handle: str) -> bool:
        return _local_path(handle) is not None and handle.lower().endswith(_ARCHIVE_SUFFIXES)

    def __call__(self, request: _Request) -> ResolvedModule:
        path = _existing(request.handle)
        digest = _file_digest(path)

        def make(work: Path) -> Path:
            root = _unpack(path, work, request.handle)
            if _file_digest(path) != digest:
                raise ModuleError(
                    f"module {request.handle}: the file changed while it was being read; try again when nothing "
                    "writes to it"
                )
            return root

        return request.cached(("archive", digest), make)


class _LocalDirectory:
    accepts = "a local directory"

    def is_supported(self, handle: str) -> bool:
        return _local_path(handle) is not None

    def __call__(self, request: _Request) -> ResolvedModule:
        path = _existing(request.handle)
        if not path.is_dir():
            raise ModuleError(
                f"module {request.handle}: it is a file of another kind, expected {_accepted()}; pack or name it so"
            )
        check_module(path, request.handle)
        digest = module_digest(path)
        check_digest(digest, request.sha256, request.handle)
        return ResolvedModule(request.handle, str(path), digest)


# The first one that supports a handle takes it.
_RESOLVERS: tuple[_Resolver, ...] = (_Untrained(), _Http(), _Gcs(), _LocalArchive(), _LocalDirectory())


def _accepted() -> str:
    *others, last = (resolver.accepts for resolver in reversed(_RESOLVERS))
    return f"{', '.join(others)} or {last}"


def _not_found(handle: str) -> ModuleError:
    return ModuleError(f"module {handle}: not found, expected {_accepted()}; check its spelling")


def _local_path(handle: str) -> Path | None:
    """Returns the absolute path that a handle names, or None if it does not name a local one."""
    if handle.lower().startswith("file://"):
        url = urllib.parse.urlsplit(handle)
        return Path(urllib.request.url2pathname(url.path)) if url.netloc in ("", "localhost") else None
    if not handle.strip() or "://" in handle:
        return None
    # Path.expanduser raises where there is no such user; this leaves the path as it is, to be not found.
    return Path(os.path.expanduser(handle)).absolute()


def _existing(handle: str) -> Path:
    path = _local_path(handle)
    if path is None or not path.exists():
        raise _not_found(handle)
    return path


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(path: Path, work: Path, handle: str) -> Path:
    """Unpacks a tarball into `work` and returns the root of the module: its own, or its one enclosing directory."""
    root = work / "unpacked"
    archive.extract(path, root, handle)
    members = list(root.iterdir())
    return members[0] if len(members) == 1 and members[0].is_dir() else root
