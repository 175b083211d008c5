"""Local paths as module handles name them: absolute, relative, `~/…` and `file://…`."""

from __future__ import annotations

import os.path
import urllib.parse
import urllib.request
from pathlib import Path

from pipeline.hub.handles.base import Request


def local_path(handle: str) -> Path | None:
    """Returns the absolute path that a handle names, or None if it does not name a local one."""
    if handle.lower().startswith("file://"):
        url = urllib.parse.urlsplit(handle)
        return Path(urllib.request.url2pathname(url.path)) if url.netloc in ("", "localhost") else None
    if not handle.strip() or "://" in handle:
        return None
    # Path.expanduser raises where there is no such user; this leaves the path as it is, to be not found.
    return Path(os.path.expanduser(handle)).absolute()


def existing_path(request: Request) -> Path:
    """Returns the absolute path of a local handle.

    Raises:
      ModuleError: there is nothing at the path.
    """
    path = local_path(request.handle)
    if path is None or not path.exists():
        raise request.not_found()
    return path
