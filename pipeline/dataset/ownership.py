"""The files of an output directory that belong to the data set, and their removal. Other files are never removed."""

from __future__ import annotations

import datetime
import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pipeline.core.errors import OutputError
from pipeline.core.json import to_json
from pipeline.dataset.metadata import (
    MANIFESTS_NAME,
    REPORT_NAME,
    SHARD_FOLDERS,
    SPEC_NAME,
    SUMMARY_NAME,
    Manifest,
    manifest_path,
    read_manifests,
    read_spec,
    wave_after,
)
from pipeline.dataset.sinks.base import SCHEMA_NAME, find_sink
from pipeline.dataset.sinks.registry import SINKS
from pipeline.embedding.dataset_spec import Spec
from pipeline.inputs.find import OtherDataset
from pipeline.storage import filesystem
from pipeline.storage.lock_file import LOCK_NAME
from pipeline.storage.locked import STAGING_NAME, LockedDirectory

_TEMPORARY_END = r"\.[0-9a-f]{32}\.tmp"
# A shard's extension begins with the name of its sink.
_FORMATS = "|".join((*SINKS.names, "jsonl"))
_KINDS = "|".join(f"{folder}/{folder.partition('-')[0]}" for folder in SHARD_FOLDERS)
_SHARD = rf"(?:{_KINDS})-(\d{{5,}})-\d{{5,}}-of-\d{{5,}}\.(?:{_FORMATS})(?:\.gz)?"
_TABLE = rf"{MANIFESTS_NAME}/(\d{{5,}})-(?:inputs|retried)-\d{{5,}}\.parquet"
_WAVE_FILE = re.compile(rf"{_SHARD}|{_TABLE}", re.ASCII)
_STAGED = re.compile(r"[0-9a-f]{32}/.*", re.ASCII)
# As runs of earlier versions named them.
_STAGED_BEFORE = re.compile(
    rf"\d{{5,}}/(?:plan-\d{{5,}}\.jsonl(?:{_TEMPORARY_END})?|(?:embeddings|failures)-[0-9a-f]+(?:/.*)?)", re.ASCII
)
_TEMPORARY = re.compile(rf"(?:spec|summary|\d{{5,}})\.json{_TEMPORARY_END}", re.ASCII)
_FIXED = re.compile(
    rf"(?:{SPEC_NAME}|{SUMMARY_NAME}|{REPORT_NAME}|{SCHEMA_NAME}|{LOCK_NAME}|{MANIFESTS_NAME}/\d{{5,}}\.json)"
    rf"(?:{_TEMPORARY_END})?",
    re.ASCII,
)


def owned_files(output: str, manifests: Iterable[Manifest]) -> list[str]:
    """Returns the paths of all files that the data set's spec and manifests own, in the form of `list_files`.

    The manifests come first: an interrupted removal in this order leaves no manifest without its files.
    """
    manifests = tuple(manifests)
    owned = [manifest_path(output, manifest.wave) for manifest in manifests]
    owned += [path for manifest in manifests for path in _table_paths(output, manifest)]
    owned += [filesystem.join(output, entry.path) for manifest in manifests for entry in manifest.outputs]
    owned += [filesystem.join(output, name) for name in (SUMMARY_NAME, SCHEMA_NAME, SPEC_NAME)]
    return owned if filesystem.is_remote(output) else [os.path.normpath(path) for path in owned]


def _table_paths(output: str, manifest: Manifest) -> list[str]:
    tables = (*manifest.inputs, *manifest.retried)
    return [filesystem.join(output, table.path) for table in tables if not table.is_inline]


def is_own_file(output: str, path: str) -> bool:
    """Returns whether the name of a file is one that runs with `--output=output` write.

    Args:
      output: directory of the data set; on local disk, absolute like `path`.
      path: path of the file.
    """
    name = _relative(output, path)
    return name is not None and bool(
        _FIXED.fullmatch(name)
        or _WAVE_FILE.fullmatch(name)
        or (name.startswith(f"{STAGING_NAME}/") and _is_staged(name[len(STAGING_NAME) + 1 :]))
    )


def _is_staged(name: str) -> bool:
    return bool(_STAGED.fullmatch(name) or _STAGED_BEFORE.fullmatch(name))


def outputs_in(output: str) -> Callable[[str], Callable[[str], bool] | None]:
    """Returns a function that returns, for a folder, the test whether runs with `--output=output` write a file of it.

    For most folders it returns None: they are not below the output. On local disk, links are resolved: a path through
    a link may lead to the output.
    """
    target = filesystem.absolute(output)

    @functools.lru_cache(maxsize=1024)  # the pages of a folder come one after the other
    def test(folder: str) -> Callable[[str], bool] | None:
        if filesystem.is_remote(target) or filesystem.is_remote(folder):
            return None if _relative(target, f"{folder}/") is None else functools.partial(is_own_file, target)
        place, real_target = os.path.realpath(folder), os.path.realpath(target)
        if _relative(real_target, os.path.join(place, "file")) is None:
            return None
        return lambda path: is_own_file(real_target, os.path.join(place, os.path.basename(path)))

    return test


def other_dataset_in(folder: str) -> OtherDataset | None:
    """Returns the data set to which a folder belongs; None if it belongs to none."""
    root, _, name = folder.rstrip("/").rpartition("/")
    return _dataset_at(root) if root and name in (*SHARD_FOLDERS, MANIFESTS_NAME) else None


@functools.lru_cache(maxsize=1024)
def _dataset_at(root: str) -> OtherDataset | None:
    try:
        is_dataset = read_spec(root) is not None
    except (OutputError, OSError):
        return None
    return OtherDataset(root, functools.partial(is_own_file, filesystem.absolute(root))) if is_dataset else None


def _relative(directory: str, path: str) -> str | None:
    """Returns the path of a file relative to a directory, with `/`; None if the file is not below the directory."""
    if filesystem.is_remote(directory) or filesystem.is_remote(path):
        prefix = directory.rstrip("/") + "/"
        return path[len(prefix) :] if path.startswith(prefix) else None
    name = os.path.relpath(path, directory).replace(os.sep, "/")
    return None if name.startswith("../") else name


def start_over(directory: LockedDirectory, spec: Spec) -> tuple[Manifest, ...]:
    """Removes all waves of a data set, which then holds vectors of another spec; returns the manifests that it has.

    The waves stop counting all at once; then their files are removed. Only files that the data set owns are removed.

    Raises:
      OutputError: a manifest cannot be read, or another run has taken over the data set.
      OSError: a file cannot be removed.
    """
    manifests = read_manifests(directory.path)
    left = (retire(directory, [manifest.wave for manifest in manifests], manifests),) if manifests else ()
    write_spec(directory, spec)
    clear_schema(directory)
    # The page of the former vectors. Another process may have written a new one: that page has to be made again.
    directory.remove([filesystem.join(directory.path, REPORT_NAME)])
    remove_waves(directory, manifests)
    return left


def clear_schema(directory: LockedDirectory) -> None:
    """Empties `schema.pbtxt`, if there is one: the next wave may write the file again, so it must not be removed."""
    if filesystem.exists(filesystem.join(directory.path, SCHEMA_NAME)):
        directory.replace(SCHEMA_NAME, b"# no TFRecords yet\n")


def retire(directory: LockedDirectory, waves: Sequence[str], manifests: Iterable[Manifest]) -> Manifest:
    """Commits an empty wave that replaces others, so that their files can be removed; returns its manifest.

    Whoever removes a file may sleep before the removal, while others write. Its name must therefore never be used
    again: new waves get numbers above that of the newest manifest, which stays.

    Args:
      directory: the data set.
      waves: names of the waves that no longer count; a wave without a manifest too.
      manifests: all manifests of the data set.
    """
    name = wave_after([*waves, *(manifest.wave for manifest in manifests)])
    started = datetime.datetime.now(datetime.UTC).isoformat()
    marker = Manifest(name, (), (), 0, 0, {}, started, 0.0, {}, replaces=tuple(waves))
    write_manifest(directory, marker)
    return marker


def write_manifest(directory: LockedDirectory, manifest: Manifest) -> None:
    """Writes the manifest of a wave, which commits the wave.

    Raises:
      OutputError: another run has taken over the data set.
      OSError: the file cannot be written.
    """
    directory.replace(f"{MANIFESTS_NAME}/{manifest.wave}.json", to_json(manifest))


def write_spec(directory: LockedDirectory, spec: Spec) -> None:
    """Writes the spec of a data set.

    Raises:
      OutputError: another run has taken over the data set.
      OSError: the file cannot be written.
    """
    directory.replace(SPEC_NAME, to_json(spec))


def remove_waves(directory: LockedDirectory, manifests: Sequence[Manifest]) -> None:
    """Removes waves that another manifest replaces: first their manifests, then their files.

    An interruption leaves no manifest without its files.

    Raises:
      OutputError: another run has taken over the data set.
      OSError: a file cannot be removed.
    """
    output = directory.path
    directory.remove(manifest_path(output, manifest.wave) for manifest in manifests)
    files: list[str] = [path for manifest in manifests for path in _table_paths(output, manifest)]
    shards: dict[str, list[str]] = {}
    for entry in (entry for manifest in manifests for entry in manifest.outputs):
        path = filesystem.join(output, entry.path)
        if entry.kind == "embeddings" and entry.format in SINKS.paths:
            shards.setdefault(entry.format, []).append(path)
        else:
            files.append(path)
    directory.remove(files)
    for name, paths in shards.items():
        directory.remove(paths, find_sink(name).discard)


def remove_remains(directory: LockedDirectory) -> tuple[Manifest, ...]:
    """Removes the remains of other runs: what they staged, files of uncommitted waves, and replaced waves.

    Whoever takes the lock calls this function first: afterwards, no other run can add a wave.

    Returns:
      The manifests of the data set, oldest wave first.

    Raises:
      OutputError: a manifest cannot be read, or another run has taken over the data set.
      OSError: a file cannot be removed.
    """
    output = directory.path
    directory.remove_others(lambda name: _STAGED_BEFORE.fullmatch(name) is not None)
    directory.remove(temporary_files(output))
    manifests = read_manifests(output)
    if not manifests and read_spec(output) is None:
        return ()  # no run has published a file yet
    replaced = {wave for manifest in manifests for wave in manifest.replaces}
    remove_waves(directory, [manifest for manifest in manifests if manifest.wave in replaced])
    manifests = tuple(manifest for manifest in manifests if manifest.wave not in replaced)
    owned = set(owned_files(output, manifests))
    remains = {
        stat.path: found[1] or found[2]
        for folder in (*SHARD_FOLDERS, MANIFESTS_NAME)
        for stat in filesystem.list_files(filesystem.join(output, folder))
        if stat.path not in owned and (found := _WAVE_FILE.fullmatch(_relative(output, stat.path) or ""))
    }
    newest = max((int(manifest.wave) for manifest in manifests), default=-1)
    uncommitted = {wave for wave in remains.values() if int(wave) > newest}
    if uncommitted:
        manifests = (*manifests, retire(directory, sorted(uncommitted, key=int), manifests))
    directory.remove(remains)
    return manifests


def temporary_files(output: str) -> list[str]:
    """Returns the paths of files that were being written when a run was killed."""
    if filesystem.is_remote(output):  # objects appear whole
        return []
    found = [*Path(output).glob("*.tmp"), *Path(output, MANIFESTS_NAME).glob("*.tmp")]
    return sorted(str(path) for path in found if _TEMPORARY.fullmatch(path.name))
