"""Versions of installed packages."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable

_VERSION = re.compile(r"^Version: (\S+)", re.MULTILINE)


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of packages, by name; leaves out packages that are not installed."""
    found = {}
    for name in names:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        # `package.version` would parse the whole metadata, which takes 20 ms for each package.
        header = _VERSION.search(package.read_text("METADATA") or "")
        found[name] = header[1] if header else package.version
    return found
