"""Registries: the kinds that a flag can name, one line each.

A new kind is one file that implements it and one line in the `registry.py` of its folder. The file is imported when the
kind is first used, so that a command loads what it needs and no more.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.suggestions import describe_unknown


@dataclass(frozen=True)
class Registry:
    """Implementations by name.

    Attributes:
      flag: the flag whose values are the names.
      paths: where each implementation is: `module:attribute`.
    """

    flag: str
    paths: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which automatic choices try them."""
        return tuple(self.paths)

    def load(self, name: str) -> Any:
        """Returns the implementation of a name.

        Raises:
          UsageError: no kind has this name.
        """
        if name not in self.paths:
            raise UsageError(f"--{self.flag}={describe_unknown(name, self.paths)}")
        module, _, attribute = self.paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


def load_registry(path: str) -> Registry:
    """Returns a registry by its path, `module:attribute`, for settings, which lie below all registries.

    A registry's module imports nothing that takes time.
    """
    module, _, attribute = path.partition(":")
    registry: Registry = getattr(importlib.import_module(module), attribute)
    return registry
