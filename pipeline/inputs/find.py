"""Finding the inputs of a run: expands patterns to files, each with its kind and its name in keys."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pipeline.core.errors import InputError
from pipeline.core.settings import InputConfig
from pipeline.inputs.base import InputFile, InputKind
from pipeline.inputs.tasks import find_kind, registered_kinds
from pipeline.storage import filesystem
from pipeline.storage.object_store import FileStat

_log = logging.getLogger(__name__)


def find_inputs(
    config: InputConfig,
    is_output: Callable[[str], bool] = lambda path: False,
    kinds: Sequence[InputKind] = (),
) -> tuple[InputFile, ...]:
    """Returns the input files of a run, sorted by path, each once.

    Args:
      config: the patterns and the input format.
      is_output: returns whether a run wrote the file of a path to an output data set; such files are no inputs.
      kinds: additional input kinds, which take precedence over the registered ones.

    Raises:
      InputError: a pattern matched nothing, the kind of a file is unknown, or two files have the same name.
    """
    patterns = [filesystem.absolute(pattern) for pattern in config.input]
    matches = {pattern: _match(pattern, is_output) for pattern in patterns}
    for pattern, given in zip(patterns, config.input, strict=True):
        if not matches[pattern] and (filesystem.is_remote(pattern) or not os.path.isdir(pattern)):
            raise InputError(f"no input matched {given}; expected image files or TFRecords")
    bases = {pattern: _base(pattern, matches[pattern]) for pattern in patterns}
    base = _common_parent(bases.values())
    files: dict[str, InputFile] = {}
    ignored: Counter[str] = Counter()
    repeated = 0
    for pattern in patterns:
        is_directory = not any(stat.path == pattern for stat in matches[pattern])
        for stat in matches[pattern]:
            hidden = is_directory and _is_hidden(_relative(stat.path, bases[pattern]))
            kind = None if hidden else _kind(stat.path, config.input_format, kinds, is_named=not is_directory)
            if kind is None:
                ignored[os.path.splitext(stat.path)[1] or "no extension"] += 1
                continue
            for file in kind.find(stat, _relative(stat.path, base)):
                other = files.setdefault(file.path, file)
                repeated += not kind.in_directories and other.name != file.name
    if ignored:
        listed = ", ".join(f"{count} of {extension}" for extension, count in ignored.most_common(5))
        _log.warning(
            "ignored %d files that are neither images nor TFRecords by their names: %s", ignored.total(), listed
        )
    if repeated:
        _log.warning(
            "%d list lines name a file that an earlier line names differently; the earlier line gives the key",
            repeated,
        )
    if not files:
        detail = f"; {ignored.total()} other files were ignored, name their --input_format" if ignored else ""
        raise InputError(f"no input matched {' '.join(config.input)}; expected image files or TFRecords{detail}")
    _check_names(files.values())
    return tuple(files[path] for path in sorted(files))


def _check_names(files: Iterable[InputFile]) -> None:
    """Checks that no two files have the same name, and so the same keys; lines of list files can cause that."""
    paths: dict[str, str] = {}
    for file in files:
        other = paths.setdefault(file.name, file.path)
        if other != file.path:
            raise InputError(
                f"{other} and {file.path} would have the same key, {file.name}; write the list's line in another way, "
                "such as with the absolute path"
            )


def _match(pattern: str, is_output: Callable[[str], bool]) -> list[FileStat]:
    try:
        found = filesystem.match(pattern)
    except OSError as error:
        raise InputError(f"--input={pattern} cannot be listed: {error}") from error
    return [stat for stat in found if not is_output(stat.path)]


def _kind(path: str, wanted: str, kinds: Sequence[InputKind], *, is_named: bool) -> InputKind | None:
    """Returns the kind of a file; None for a file from a directory whose name matches no kind."""
    if wanted != "auto":
        return find_kind(wanted, kinds)
    name = posixpath.basename(path.replace(os.sep, "/")).lower()
    for kind in (*kinds, *registered_kinds()):
        if (kind.in_directories or is_named) and kind.recognizes(name):
            return kind
    if not is_named:
        return None
    *others, last = (kind.name for kind in (*kinds, *registered_kinds()))
    raise InputError(f"the name of {path} does not show its kind; use --input_format={', '.join(others)} or {last}")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _base(pattern: str, matches: Sequence[FileStat]) -> str:
    """Returns the directory that the names of a pattern's files are relative to."""
    if any(stat.path == pattern for stat in matches):
        return posixpath.dirname(pattern) if filesystem.is_remote(pattern) else os.path.dirname(pattern)
    if filesystem.has_wildcard(pattern) and not (not filesystem.is_remote(pattern) and os.path.isdir(pattern)):
        base = filesystem.glob_base(pattern)
        return "" if base == os.curdir else base
    return pattern.rstrip("/") if filesystem.is_remote(pattern) else pattern


def _common_parent(bases: Iterable[str]) -> str | None:
    """Returns the deepest common parent of some directories, or None if there is none."""
    unique = sorted(set(bases))
    if len(unique) == 1:
        return unique[0]
    if any(filesystem.is_remote(base) for base in unique):
        if len({base.split("/")[2] if filesystem.is_remote(base) else None for base in unique}) > 1:
            return None
        return posixpath.commonpath(unique).replace(":/", "://", 1)
    try:
        return os.path.commonpath([os.path.abspath(base) for base in unique])
    except ValueError:  # different drives
        return None


def _relative(path: str, base: str | None) -> str:
    if base is None:
        return path
    if filesystem.is_remote(path):
        return path[len(base) :].lstrip("/") if path.startswith(base) else path
    return os.path.relpath(path, base or os.curdir).replace(os.sep, "/")


def check_records(files: Sequence[InputFile], kinds: Sequence[InputKind] = ()) -> None:
    """Checks that at least one file of a run has readable records.

    A single unreadable file is only a failure record. If no file is readable, the command is wrong. Usually this
    check reads the beginning of one file.

    Raises:
      InputError: no file has readable records.
    """
    problem = ""
    unreadable: list[tuple[InputFile, OSError]] = []
    for file in files:
        try:
            found = find_kind(file.kind, kinds).describe_problem(file)
        except OSError as error:
            unreadable.append((file, error))
            continue
        if not found:
            return
        problem = problem or f"{file.path} {found}"
    if unreadable:
        file, reason = unreadable[0]
        raise InputError(f"{file.path} cannot be read: {reason}") from reason
    others = f", nor is any of the other {len(files) - 1} inputs" if len(files) > 1 else ""
    raise InputError(
        f"no records: {problem}{others}; expected TFRecords of tf.train.Example; for image files use "
        "--input_format=images"
    )
