"""The seam between a module handle, as a user writes it, and a module on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.core.errors import ModuleError
from pipeline.hub.cache import ModuleCache, cache_directory
from pipeline.model_formats.registry import read_module
from pipeline.savedmodel.module import Module


@dataclass(frozen=True, slots=True)
class Request:
    """A module that is to be resolved.

    Attributes:
      handle: as the user wrote it.
      sha256: the digest that the module must have, or None for any.
      cache_dir: the directory of the modules' cache, or None for `cache_directory()`.
      accepted: what handles look like, for error messages.
    """

    handle: str
    sha256: str | None
    cache_dir: Path | None
    accepted: str

    def cached(self, identity: tuple[object, ...], make: Callable[[Path], Path]) -> Module:
        """Returns a module from the cache; makes it if it is not there.

        Args:
          identity: what the module is made from; its `repr` names the cache entry. Starts with the kind of the handle.
          make: makes the module somewhere in the empty directory that it gets, and returns where.

        Raises:
          ModuleError: `make` made no module, or one without the digest `sha256`.
          CacheError: the module cannot be stored.
        """
        cache = ModuleCache((self.cache_dir or cache_directory()).absolute())
        entry = cache.get(self.handle, identity, make, self.sha256)
        return read_module(entry.path, handle=self.handle, sha256=entry.sha256)

    def not_found(self) -> ModuleError:
        """Returns the error for a handle that names nothing."""
        return ModuleError(f"module {self.handle}: not found, expected {self.accepted}; check its spelling")


class ModuleHandle(Protocol):
    """One kind of module handle.

    To add a kind, write a class with these three members and add it to `pipeline.hub.handles.registry.HANDLES`.

    Attributes:
      accepts: what such handles look like, as a phrase for error messages: `a local directory`.
    """

    accepts: str

    def is_supported(self, handle: str) -> bool:
        """Says whether a handle is of this kind, by its text alone: whether there is such a module does not matter."""

    def __call__(self, request: Request) -> Module:
        """Returns the module that a handle of this kind names, on this machine and with the digest asked for.

        Raises:
          ModuleError: there is no such module, or it cannot be trusted, copied or read.
          OSError: a file cannot be read; the caller turns this into a `ModuleError`.
        """
