"""Bringing a module to workers on other machines.

```
LOCATION/modules/<digest>/    the module's files, as they are here
```

A worker takes the directory as a module handle, together with the digest that it must have.
"""

from __future__ import annotations

import logging
import os

from pipeline.core.errors import UsageError
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)


def stage_module(directory: str, sha256: str, location: str) -> str:
    """Copies a module to where workers can read it, unless it is there already.

    `saved_model.pb` comes last: a directory without it, which an interrupted copy leaves, is no module.

    Args:
      directory: the module's, on this machine.
      sha256: its digest.
      location: a directory that this process can write and workers can read, such as `gs://bucket/temp`.

    Returns:
      The directory of the copy, a module handle for the workers.

    Raises:
      UsageError: the location cannot be written.
    """
    # Workers have another current directory.
    location = filesystem.absolute(location)
    target = filesystem.join(location, "modules", sha256)
    names = {os.path.relpath(stat.path, directory): stat.size_bytes for stat in filesystem.list_files(directory)}
    try:
        there = {stat.path: stat.size_bytes for stat in filesystem.list_files(target)}
        missing = [name for name, size_bytes in names.items() if there.get(_staged_path(target, name)) != size_bytes]
        for name in sorted(missing, key=lambda name: (name == SAVED_MODEL, name)):
            # In pieces: the variables of a module can be larger than memory.
            filesystem.write_atomically(
                _staged_path(target, name), filesystem.read_chunks(os.path.join(directory, name))
            )
    except OSError as error:
        raise UsageError(
            f"the module cannot be copied to --temp_location={location}: {error}; expected a directory that this "
            "process can write and the workers can read"
        ) from error
    if missing:
        _log.info("staged the module to %s", target)
    return target


def _staged_path(target: str, name: str) -> str:
    return filesystem.join(target, *name.split(os.sep))
