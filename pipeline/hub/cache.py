"""The modules that were fetched, unpacked or made on this machine.

```
CACHE/module-<SHA-256 of what it was made from>/
    module/          the module's files, nothing else
    origin.json      the handle, and the digest of module/
```

An entry is made elsewhere and appears by one rename: it is there whole or not at all, whoever else is making it,
without locks. Each use checks it against its digest, so one that a crash or a person damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pipeline.core.errors import ModuleError
from pipeline.model_formats.registry import model_file_in
from pipeline.savedmodel.digest import check_digest, module_digest, not_a_module

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_PARTIAL_PREFIX = ".embedding-pipeline-partial-"
_STALE_S = 24 * 60 * 60
_PUBLISH_ATTEMPTS = 5


class CacheError(ModuleError):
    """The cache of modules cannot be used."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A directory in the cache that was checked against its digest.

    Attributes:
      path: the directory that holds the entry's files and nothing else, absolute.
      sha256: the digest of the files, 64 lower-case hexadecimal digits; see `module_digest`.
    """

    path: str
    sha256: str


def cache_directory() -> Path:
    """Returns where modules are kept.

    It is `TFHUB_CACHE_DIR` if that is set, else `embedding-pipeline/modules` in the user's cache directory.

    Raises:
      CacheError: `TFHUB_CACHE_DIR` is not a local directory, or it is not set and the user has no home.
    """
    try:
        if chosen := os.environ.get("TFHUB_CACHE_DIR"):
            if "://" in chosen:
                raise CacheError(f"TFHUB_CACHE_DIR is {chosen}, expected a local directory; set it to one")
            return Path(chosen).expanduser().absolute()
        # Windows would get two more levels, for the name of the author and for `Cache`.
        return platformdirs.user_cache_path("embedding-pipeline", appauthor=False, opinion=False) / "modules"
    except RuntimeError as error:
        raise CacheError(
            f"no cache directory for modules ({error}), expected a home or TFHUB_CACHE_DIR; set TFHUB_CACHE_DIR to a "
            "directory"
        ) from error


@dataclass(frozen=True, slots=True)
class ModuleCache:
    """Modules by what they were made from.

    Attributes:
      directory: holds the entries; made when it is first needed.
      kind: what the entries are, the beginning of their names.
      root_file: the file that every entry has at its root; None if an entry is a module of any format.
    """

    directory: Path
    kind: str = "module"
    root_file: str | None = None

    def get(
        self, handle: str, identity: tuple[object, ...], make: Callable[[Path], Path], sha256: str | None
    ) -> CacheEntry:
        """Returns a module, making it if it is not there.

        Args:
          handle: what the user named.
          identity: what the module is made from; equal identities share an entry.
          make: makes the module somewhere in the empty directory that it gets, and returns where.
          sha256: the digest that the module should have. If the entry has another, the module is made once more,
            and takes the entry's place if its digest is the right one.

        Raises:
          ModuleError: what was made has no `root_file` or not the digest `sha256`.
          CacheError: what was made cannot be stored.
        """
        entry = self.directory / f"{self.kind}-{hashlib.sha256(repr(identity).encode()).hexdigest()}"
        digest = _entry_digest(entry)
        if digest is None or sha256 not in (None, digest):
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._remove_stale()
                with tempfile.TemporaryDirectory(
                    prefix=_PARTIAL_PREFIX, dir=self.directory, ignore_cleanup_errors=True
                ) as scratch:
                    digest = _make_entry(entry, Path(scratch), handle, make, sha256, self.root_file)
            except OSError as error:
                raise CacheError(
                    f"module {handle}: it cannot be stored in the cache directory {self.directory} "
                    f"({error.strerror or error}), expected free space and permission to write; see to them, or set "
                    "TFHUB_CACHE_DIR to another directory"
                ) from error
        return CacheEntry(str(entry / "module"), digest)

    def _remove_stale(self) -> None:
        """Removes what processes that were killed left behind."""
        for path in self.directory.glob(f"{_PARTIAL_PREFIX}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


def _make_entry(
    entry: Path, scratch: Path, handle: str, make: Callable[[Path], Path], sha256: str | None, root_file: str | None
) -> str:
    """Makes an entry in `scratch`, moves it to `entry` and returns the digest of the module there."""
    work, made = scratch / "work", scratch / "entry"
    work.mkdir()
    made.mkdir()
    make(work).rename(made / "module")
    module = made / "module"
    is_whole = model_file_in(module) is not None if root_file is None else (module / root_file).is_file()
    if not is_whole:
        raise not_a_module(handle)
    digest = module_digest(made / "module")
    check_digest(digest, sha256, handle)
    (made / "origin.json").write_text(json.dumps({"handle": handle, "sha256": digest}) + "\n", encoding="utf-8")
    for attempt in range(_PUBLISH_ATTEMPTS):
        try:
            made.rename(entry)
            break
        except OSError:
            # A directory never takes the place of another. Either another process was first, or what is there is
            # damaged or not what is asked for.
            other_digest = _entry_digest(entry)
            if other_digest is not None and sha256 in (None, other_digest):
                return other_digest
            if attempt == _PUBLISH_ATTEMPTS - 1:
                raise
            with suppress(OSError):
                entry.rename(scratch / f"replaced-{attempt}")
    return digest


def _entry_digest(entry: Path) -> str | None:
    """Returns the digest of an entry's module, or None if there is no entry or it is damaged."""
    try:
        recorded = json.loads((entry / "origin.json").read_bytes())["sha256"]
        digest = module_digest(entry / "module")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, ModuleError) as error:
        _logger.warning("The cached module %s is damaged (%s)", entry, error)
        return None
    if digest != recorded:
        _logger.warning("The cached module %s is damaged: its SHA-256 is %s, not %s", entry, digest, recorded)
        return None
    return digest
