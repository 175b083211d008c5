"""Planning: the inputs that the data set's manifests do not cover, cut into waves.

The tasks of a wave are written to plan files in the staging directory, which the workers read. The pipeline graph,
which runners limit to some megabytes, therefore does not grow with the number of inputs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from pipeline.core.failures import Failure
from pipeline.core.json import from_json, to_json_line
from pipeline.core.keys import key_to_text
from pipeline.core.records import Address
from pipeline.dataset.metadata import STAGING_NAME, InputEntry, KeyKind, Manifest, live, next_wave
from pipeline.inputs.base import UNKNOWN_BYTES, InputFile, ReadTask
from pipeline.inputs.tasks import find_kind, make_tasks
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)

_NO_END = 1 << 62

TASKS_PER_PLAN_FILE = 500
"""Tasks in one plan file: up to 32,000 images."""


@dataclass(frozen=True)
class Wave:
    """The work that one pipeline reads and commits.

    Attributes:
      name: name of the wave, as in file names.
      tasks: the tasks to read.
      retried: sources of earlier failures that the wave retries.
    """

    name: str
    tasks: tuple[ReadTask, ...]
    retried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
      waves: the waves, in order.
      skipped: number of records that earlier runs have done.
    """

    waves: tuple[Wave, ...]
    skipped: int


def make_plan(
    files: Sequence[InputFile],
    manifests: Sequence[Manifest],
    *,
    wave_bytes: int | None,
    failures: Iterable[Failure] = (),
) -> Plan:
    """Returns the work after which a data set covers the files in their present state.

    A file is done if a live wave covers it with the same path, size and modification time, and with the name from
    `_settle_names`.

    Args:
      files: all files that the data set should cover.
      manifests: the manifests of the data set.
      wave_bytes: input bytes per wave, which groups whole files; None for one wave.
      failures: earlier failures to retry; those of done files get a separate wave.
    """
    covered: dict[str, InputEntry] = {}
    owners: dict[str, str] = {}
    for manifest in live(manifests):
        for entry in manifest.inputs:
            covered[entry.path] = entry
            if manifest.keys_of(entry) != "feature":
                owners[entry.name] = entry.path
    files = _settle_names(files, covered, owners)
    failures = tuple(failures)
    again_whole = {failure.source for failure in failures}
    done = {
        file.path: file
        for file in files
        if _is_covered(file, covered.get(file.path), owners)
        and (file.path not in again_whole or not find_kind(file.kind).has_records)
    }
    missing = [file for file in files if file.path not in done]
    _warn_of_taken_names(missing, owners, {file.path for file in files})
    work = [_Work(tuple(make_tasks(group)), ()) for group in _group(missing, wave_bytes)]
    again = _retry_work(done, failures)
    if again.tasks:
        work.append(again)
    first = int(next_wave(manifests))
    waves = tuple(Wave(f"{first + index:05d}", item.tasks, item.retried) for index, item in enumerate(work))
    return Plan(waves, sum(covered[path].records for path in done) - len(again.retried))


def _settle_names(
    files: Sequence[InputFile], covered: Mapping[str, InputEntry], owners: Mapping[str, str]
) -> list[InputFile]:
    """Returns the files with their final names, of which the keys are made.

    A file keeps its name in the data set even if other input patterns match it now; otherwise rows with its old keys
    would remain. Two exceptions get the new name: no row of the file has the old name any more, or another file of this
    run has that name.
    """
    now = {file.name: file.path for file in files}
    settled = []
    for file in files:
        entry = covered.get(file.path)
        if entry is not None and owners.get(entry.name) == file.path and now.get(entry.name, file.path) == file.path:
            file = dataclasses.replace(file, name=entry.name)
        settled.append(file)
    return settled


def write_plan(output: str, wave: Wave) -> tuple[str, ...]:
    """Writes the tasks of a wave to plan files in the staging directory; returns their paths.

    Raises:
      OSError: a file cannot be written.
    """
    directory = filesystem.join(output, STAGING_NAME, wave.name)
    paths: list[str] = []
    for start in range(0, len(wave.tasks), TASKS_PER_PLAN_FILE):
        path = filesystem.join(directory, f"plan-{len(paths):05d}.jsonl")
        lines = [to_json_line(task) for task in wave.tasks[start : start + TASKS_PER_PLAN_FILE]]
        filesystem.write_atomically(path, "\n".join(lines).encode())
        paths.append(path)
    return tuple(paths)


def read_plan(path: str) -> list[ReadTask]:
    """Returns the tasks in a plan file.

    Raises:
      OSError: the file cannot be read.
    """
    return [from_json(ReadTask, line) for line in filesystem.read_bytes(path).decode().splitlines()]


def covered_inputs(tasks: Iterable[ReadTask], key_feature: str | None) -> tuple[InputEntry, ...]:
    """Returns the manifest entries of the files that the tasks read completely.

    Args:
      tasks: the tasks.
      key_feature: the feature of TFRecords that holds the keys, if any.
    """
    entries: list[InputEntry] = []
    for task in tasks:
        if task.ranges is not None:
            continue
        # The number of records in a file is unknown before the file is read.
        has_records = find_kind(task.kind).has_records
        records = 0 if has_records else 1
        keys: KeyKind = "name" if not has_records else "offset" if key_feature is None else "feature"
        for file in task.files:
            entries.append(InputEntry(file.path, file.name, file.size_bytes, file.mtime_s, records, keys))
    return tuple(entries)


def _is_covered(file: InputFile, entry: InputEntry | None, owners: Mapping[str, str]) -> bool:
    if entry is None or (entry.size_bytes, entry.mtime_s) != (file.size_bytes, file.mtime_s):
        return False
    by_feature = entry.name not in owners or entry.keys == "feature"
    return by_feature or (entry.name == file.name and owners[entry.name] == file.path)


def _warn_of_taken_names(files: Iterable[InputFile], owners: Mapping[str, str], inputs: Set[str]) -> None:
    """Warns if files of this run replace rows with the same keys from files that this run does not read."""

    def is_taken(file: InputFile) -> bool:
        owner = owners.get(file.name, file.path)
        return owner != file.path and owner not in inputs

    taken = list(filter(is_taken, files))
    if taken:
        first = taken[0]
        _log.warning(
            "%d files have keys that the data set has from other files, and replace their rows: %s is from %s now, and "
            "was from %s; to keep both, name both inputs in one run",
            len(taken),
            first.name,
            first.path,
            owners[first.name],
        )


def _group(files: Sequence[InputFile], wave_bytes: int | None) -> Iterator[list[InputFile]]:
    group: list[InputFile] = []
    size_bytes = 0
    for file in files:
        file_bytes = file.size_bytes or UNKNOWN_BYTES
        if group and wave_bytes is not None and size_bytes + file_bytes > wave_bytes:
            yield group
            group, size_bytes = [], 0
        group.append(file)
        size_bytes += file_bytes
    if group:
        yield group


@dataclass(frozen=True)
class _Work:
    tasks: tuple[ReadTask, ...]
    retried: tuple[str, ...]


def _retry_work(files: Mapping[str, InputFile], failures: Iterable[Failure]) -> _Work:
    """Returns tasks that read only the sources of the failures again."""
    retried: list[str] = []
    whole: list[InputFile] = []
    ranges: dict[tuple[str, bool], set[tuple[int, int]]] = {}
    for failure in failures:
        key = key_to_text(failure.key)
        address = Address.parse(failure.source)
        if failure.source in files:
            whole.append(files[failure.source])
        elif address is not None and address.path in files:
            start, stop = address.start, address.stop or 0
            if failure.reason == "read_error" and address.stop is None:
                stop = _NO_END  # a compressed file, whose uncompressed size is unknown
            # The key of a completely unread part is its range; the runner may have cut inside a record.
            aligned = not key.endswith(f"@{start}-{stop}")
            ranges.setdefault((address.path, aligned), set()).add((start, max(stop, start + 1)))
        else:
            continue
        retried.append(failure.source)
    parts = [
        ReadTask(files[path].kind, (files[path],), tuple(sorted(found)), aligned)
        for (path, aligned), found in sorted(ranges.items())
    ]
    return _Work((*parts, *make_tasks(whole)), tuple(retried))
