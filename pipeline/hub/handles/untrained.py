"""`untrained:NAME`: a built-in network with random weights."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.hub.handles.base import Request
from pipeline.savedmodel.module import Module

_log = logging.getLogger(__name__)


class UntrainedHandle:
    """Builds a network of `pipeline.mobilenet`, once for each name and version."""

    accepts = "untrained:NAME"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle starts with `untrained:`."""
        return handle.startswith("untrained:")

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or builds it; warns that its vectors mean nothing."""
        from pipeline.mobilenet import untrained

        name = request.handle.removeprefix("untrained:")

        def make(work: Path) -> Path:
            untrained.build(name, work / "module")
            return work / "module"

        module = request.cached(("untrained", untrained.VERSION, name), make)
        _log.warning(
            "WARNING: %s has random weights. Its vectors are for trying out this pipeline, and mean nothing.",
            request.handle,
        )
        return module
