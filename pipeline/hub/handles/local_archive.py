"""A local `.tar.gz` or `.tgz` that holds a module."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import is_archive_name, unpack_module
from pipeline.hub.handles.base import Request
from pipeline.hub.handles.local_path import existing_path, local_path
from pipeline.savedmodel.module import Module


class LocalArchiveHandle:
    """Unpacks the archive into the cache, which knows it by its content."""

    accepts = "a local .tar.gz or .tgz"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle is a local path with the name of an archive."""
        return local_path(handle) is not None and is_archive_name(handle)

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or unpacks it."""
        path = existing_path(request)
        digest = file_digest(path)

        def make(work: Path) -> Path:
            root = unpack_module(path, work, request.handle)
            if file_digest(path) != digest:
                raise ModuleError(
                    f"module {request.handle}: the file changed while it was being read; try again when nothing "
                    "writes to it"
                )
            return root

        return request.cached(("archive", digest), make)


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
