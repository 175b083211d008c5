"""Bringing a module to workers on other machines.

```
LOCATION/modules/<digest>/      the module's files, as they are here
LOCATION/converted/<digest>/    the same module in an engine's format
```

A directory is named by the digest of its files. A worker receives the digest with the path and checks the files.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pipeline.core.errors import ModuleError, UsageError
from pipeline.hub.copying import copy_directory
from pipeline.savedmodel.digest import SAVED_MODEL
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)


def stage_module(directory: str, sha256: str, location: str, model_file: str = SAVED_MODEL) -> str:
    """Copies a module to where workers can read it, unless it is there already.

    Args:
      directory: the module's, on this machine.
      sha256: its digest.
      location: a directory that this process can write and workers can read, such as `gs://bucket/temp`.
      model_file: the file that says what the module is, relative to its directory.

    Returns:
      The directory of the copy, a module handle for the workers.

    Raises:
      UsageError: the location cannot be written.
    """
    return stage_directory(directory, sha256, location, folder="modules", root_file=model_file)


def stage_directory(directory: str, sha256: str, location: str, *, folder: str, root_file: str) -> str:
    """Copies a directory to where workers can read it, unless it is there already; returns the copy's path.

    Args:
      directory: on this machine.
      sha256: digest of its files.
      location: a directory that this process can write and workers can read.
      folder: directory in `location` for copies of this kind.
      root_file: the file that comes last: without it, which an interrupted copy leaves out, a copy is of no use.

    Raises:
      UsageError: the location cannot be written.
    """
    # Workers have another current directory.
    location = filesystem.absolute(location)
    target = filesystem.join(location, folder, sha256)
    names = {os.path.relpath(stat.path, directory): stat.size_bytes for stat in filesystem.list_files(directory)}
    try:
        there = {stat.path: stat.size_bytes for stat in filesystem.list_files(target)}
        missing = [name for name, size_bytes in names.items() if there.get(_staged_path(target, name)) != size_bytes]
        for name in sorted(missing, key=lambda name: (name == root_file, name)):
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


def fetch_staged(path: str, target: Path) -> Path:
    """Copies a staged directory to this machine, a worker's; returns `target`. The caller checks the digest.

    Args:
      path: from `stage_directory`.
      target: the new directory.

    Raises:
      ModuleError: the worker does not see the staged directory, or cannot read it.
      OSError: the disk refuses.
    """
    try:
        files = filesystem.list_files(path)
    except OSError as error:
        raise not_seen(path) from error
    if not files:
        raise not_seen(path)
    return copy_directory(files, path + "/", target)


def not_seen(path: str) -> ModuleError:
    """Returns the error of a worker that does not see a staged directory."""
    return ModuleError(
        f"a worker does not see {path}, to which the launcher copied the module; expected --temp_location to be a "
        "directory that all machines see under the same path, or in a store such as gs://"
    )


def _staged_path(target: str, name: str) -> str:
    return filesystem.join(target, *name.split(os.sep))
