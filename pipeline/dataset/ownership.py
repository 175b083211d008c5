"""The files of an output directory that belong to the data set, and their removal. Other files are never removed."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args

from pipeline.dataset.metadata import (
    MANIFESTS_NAME,
    SPEC_NAME,
    STAGING_NAME,
    SUMMARY_NAME,
    Manifest,
    manifest_path,
    read_manifests,
    read_spec,
)
from pipeline.dataset.sinks.base import ShardKind, find_sink
from pipeline.dataset.sinks.registry import SINKS
from pipeline.storage import filesystem
from pipeline.storage.lock import LOCK_NAME

_TEMPORARY_END = r"\.[0-9a-f]{32}\.tmp"
# A shard's extension begins with the name of its sink.
_FORMATS = "|".join((*SINKS.names, "jsonl"))
_SHARD = re.compile(rf"(embeddings|failures)/\1-\d{{5,}}-\d{{5,}}-of-\d{{5,}}\.(?:{_FORMATS})(?:\.gz)?", re.ASCII)
_STAGED = re.compile(
    rf"\d{{5,}}/(?:plan-\d{{5,}}\.jsonl(?:{_TEMPORARY_END})?|(?:embeddings|failures)-[0-9a-f]+(?:/.*)?)", re.ASCII
)
_TEMPORARY = re.compile(rf"(?:spec|summary|\d{{5,}})\.json{_TEMPORARY_END}", re.ASCII)
_FIXED = re.compile(
    rf"(?:{SPEC_NAME}|{SUMMARY_NAME}|{LOCK_NAME}|{MANIFESTS_NAME}/\d{{5,}}\.json)(?:{_TEMPORARY_END})?", re.ASCII
)


def owned_files(output: str, manifests: Iterable[Manifest]) -> list[str]:
    """Returns the paths of all files that the data set's spec and manifests own, in the form of `list_files`.

    The manifests come first: an interrupted removal in this order leaves no manifest without its files.
    """
    manifests = tuple(manifests)
    owned = [manifest_path(output, manifest.wave) for manifest in manifests]
    owned += [filesystem.join(output, entry.path) for manifest in manifests for entry in manifest.outputs]
    owned += [filesystem.join(output, SUMMARY_NAME), filesystem.join(output, SPEC_NAME)]
    return owned if filesystem.is_remote(output) else [os.path.normpath(path) for path in owned]


def is_own_file(output: str, path: str) -> bool:
    """Returns whether the name of a file is one that runs with `--output=output` write.

    Args:
      output: directory of the data set; on local disk, absolute like `path`.
      path: path of the file.
    """
    name = _relative(output, path)
    return name is not None and bool(
        _FIXED.fullmatch(name)
        or _SHARD.fullmatch(name)
        or (name.startswith(f"{STAGING_NAME}/") and _STAGED.fullmatch(name[len(STAGING_NAME) + 1 :]))
    )


def output_test(output: str) -> Callable[[str], bool]:
    """Returns a function that returns whether runs with `--output=output` write the file of an absolute path.

    On local disk, links are resolved: a path through a link may lead to the output.
    """
    target = filesystem.absolute(output)
    # Cached, because each directory has many files.
    place = functools.cache(os.path.realpath)

    def is_output(path: str) -> bool:
        if filesystem.is_remote(target) or filesystem.is_remote(path):
            return is_own_file(target, path)
        directory, name = os.path.split(path)
        return is_own_file(place(target), os.path.join(place(directory), name))

    return is_output


def _relative(directory: str, path: str) -> str | None:
    """Returns the path of a file relative to a directory, with `/`; None if the file is not below the directory."""
    if filesystem.is_remote(directory) or filesystem.is_remote(path):
        prefix = directory.rstrip("/") + "/"
        return path[len(prefix) :] if path.startswith(prefix) else None
    name = os.path.relpath(path, directory).replace(os.sep, "/")
    return None if name.startswith("../") else name


def remove(output: str) -> None:
    """Removes a data set: only the files that its spec and manifests own.

    Raises:
      OutputError: the spec or a manifest cannot be read.
      OSError: a file cannot be removed.
    """
    remove_uncommitted(output)
    manifests = read_manifests(output)
    if manifests or read_spec(output) is not None:  # else summary.json belongs to something else
        remove_waves(output, manifests)
        filesystem.delete([filesystem.join(output, SUMMARY_NAME), filesystem.join(output, SPEC_NAME)])


def remove_waves(output: str, manifests: Sequence[Manifest]) -> None:
    """Removes waves: first their manifests, then their files. An interruption leaves no manifest without its files.

    Raises:
      OSError: a file cannot be removed.
    """
    filesystem.delete(manifest_path(output, manifest.wave) for manifest in manifests)
    for entry in (entry for manifest in manifests for entry in manifest.outputs):
        path = filesystem.join(output, entry.path)
        if entry.kind == "embeddings" and entry.format in SINKS.paths:
            find_sink(entry.format).discard([path])
        else:
            filesystem.delete([path])


def remove_uncommitted(output: str) -> None:
    """Removes the remains of interrupted runs: staged and temporary files, and files of uncommitted waves.

    Only the holder of the data set's lock may call this function.

    Raises:
      OutputError: a manifest cannot be read.
      OSError: a file cannot be removed.
    """
    remove_staged(output)
    filesystem.delete(temporary_files(output))
    manifests = read_manifests(output)
    if not manifests and read_spec(output) is None:
        return  # no run has published a file yet
    owned = set(owned_files(output, manifests))
    for kind in get_args(ShardKind):
        found = [stat.path for stat in filesystem.list_files(filesystem.join(output, kind)) if stat.path not in owned]
        filesystem.delete(path for path in found if _SHARD.fullmatch(_relative(output, path) or ""))


def remove_staged(output: str) -> None:
    """Removes the staged files of all waves.

    Raises:
      OSError: a file cannot be removed.
    """
    filesystem.delete_directory(filesystem.join(output, STAGING_NAME), lambda name: _STAGED.fullmatch(name) is not None)


def temporary_files(output: str) -> list[str]:
    """Returns the paths of files that were being written when a run was killed."""
    if filesystem.is_remote(output):  # objects appear whole
        return []
    found = [*Path(output).glob("*.tmp"), *Path(output, MANIFESTS_NAME).glob("*.tmp")]
    return sorted(str(path) for path in found if _TEMPORARY.fullmatch(path.name))
