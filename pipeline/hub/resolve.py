"""From a module handle to a module on this machine, once, in the launcher."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.handles import registry
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.module import Module


def resolve_module(handle: str, *, sha256: str | None = None, cache_dir: Path | None = None) -> Module:
    """Finds, fetches or makes a module, and reads what is in it.

    A local directory is used in place; everything else goes through the cache. An `http(s)://` address is taken
    to be immutable, as tensorflow_hub takes it: once fetched, its module comes from the cache until the entry is
    deleted or another `sha256` is asked for. A local tarball is known by its content, and files in an object store by
    path, size and time of change.

    Args:
      handle: a local directory or its `saved_model.pb` (also `~/…` and `file://…`), a local `.tar.gz` or `.tgz`, the
        `http(s)://` address of a `.tar.gz`, a directory or tarball with a scheme that Beam's file systems read, such
        as `gs://`, an `.onnx` or `.xml` file in any of these places, a published name or the address of its page,
        `kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]`, or `untrained:NAME`.
      sha256: the digest that the module must have, whatever kind of handle it is.
      cache_dir: takes the place of `cache_directory()`.

    Raises:
      ModuleError: there is no such kind of handle; there is no module; it cannot be fetched, unpacked, stored or read;
        or its digest is not `sha256`.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256 := sha256.strip().lower()):
        raise ModuleError(
            f"module {handle}: its SHA-256 was given as {sha256!r}, expected 64 hexadecimal digits; copy them from "
            "`python -m pipeline.hub describe`"
        )
    *others, last = (kind.accepts for kind in reversed(registry.HANDLES))
    accepted = f"{', '.join(others)} or {last}"
    for kind in registry.HANDLES:
        if kind.is_supported(handle):
            try:
                return kind(Request(handle, sha256, cache_dir, accepted))
            except OSError as error:
                raise ModuleError(
                    f"module {handle}: {error}; expected files that can be read; check the path and its permissions"
                ) from error
    raise ModuleError(f"module {handle!r}: no such kind of handle, expected {accepted}; check its spelling")
