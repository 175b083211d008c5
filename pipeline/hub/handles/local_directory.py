"""A local directory that holds a module, or the `saved_model.pb` in it."""

from __future__ import annotations

from pipeline.hub.contents import locate_module
from pipeline.hub.handles.base import Request
from pipeline.hub.handles.local_path import existing_path, local_path
from pipeline.model_formats.registry import read_module
from pipeline.savedmodel.digest import check_digest, module_digest
from pipeline.savedmodel.module import Module


class LocalDirectoryHandle:
    """Uses the directory in place: nothing is copied to the cache."""

    accepts = "a local directory"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle is a local path."""
        return local_path(handle) is not None

    def __call__(self, request: Request) -> Module:
        """Returns the module in the directory, after its digest was computed."""
        path = locate_module(existing_path(request), request.handle)
        digest = module_digest(path)
        check_digest(digest, request.sha256, request.handle)
        return read_module(str(path), handle=request.handle, sha256=digest)
