"""A look at the first records of the inputs, before a run starts: is this what the command says it is?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from pipeline.core.errors import InputError
from pipeline.inputs.base import InputFile, InputKind, ReadSettings
from pipeline.inputs.input_table import InputTable
from pipeline.inputs.sniff import describe_other
from pipeline.inputs.tasks import find_kind, find_kind_of, first_bytes, registered_kinds
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)


def check_records(files: Iterable[InputFile], kinds: Sequence[InputKind] = ()) -> None:
    """Checks that at least one file of a run has readable records.

    A single unreadable file is only a failure record. If no file is readable, the command is wrong. Usually this
    check reads the beginning of one file.

    Raises:
      InputError: no file has readable records.
    """
    problems: list[tuple[str, str, str]] = []
    unreadable: tuple[str, OSError] | None = None
    count = 0
    for file in files:
        count += 1
        try:
            found = find_kind(file.kind, kinds).describe_problem(file)
        except OSError as error:
            if unreadable is None or file.path < unreadable[0]:
                unreadable = (file.path, error)
            continue
        if not found:
            return
        # The first by path, as files come in any order.
        problems = [min([*problems, (file.path, found, file.kind)])]
    if unreadable is not None:
        path, reason = unreadable
        raise InputError(f"{path} cannot be read: {reason}") from reason
    others = f", nor is any of the other {count - 1} inputs" if count > 1 else ""
    path, problem, kind = problems[0] if problems else ("", "no files", "")
    content = _describe_content(path, kind, kinds) if path else ""
    raise InputError(
        f"no records: {path} {problem}{content}{others}; expected image files, TFRecords of tf.train.Example, tar or "
        "Parquet files; see --input_format"
    )


def _describe_content(path: str, expected: str, kinds: Sequence[InputKind]) -> str:
    """Returns what a file is that is no input of the expected kind, as an addition to a message."""
    start = first_bytes(path)
    kind = find_kind_of(start, (*kinds, *registered_kinds()))
    if kind is not None and kind.name != expected:
        return f", but for --input_format={kind.name} by its first bytes"
    other = describe_other(start)
    return f", but {other}" if other else ""


def check_images(files: InputTable, settings: ReadSettings, kinds: Sequence[InputKind] = ()) -> InputTable:
    """Checks that the files of each kind of records have images where the settings say; returns the inputs.

    Some files of a kind are looked at, until one has images: a table of labels may lie beside the shards. If none has
    images, files that a directory or a glob holds beside inputs of another kind are left out with a warning.

    Raises:
      InputError: there are no images where the settings say.
    """
    samples = files.samples_of_each_kind()
    named = {filesystem.absolute(pattern) for pattern in settings.config.input}
    for kind, some in tuple(samples.items()):
        mismatches = list(_mismatches(some, find_kind(kind, kinds), settings))
        if not mismatches:
            continue
        file, text = mismatches[0]
        if len(mismatches) < len(some):
            _log.warning("%s %s; its records count as failures", file.path, text)
            continue
        is_named = any(sample.path in named for sample in some)
        if len(samples) == 1 or settings.config.input_format != "auto" or is_named:
            raise InputError(f"{file.path} {text}")
        before = files.rows
        files = files.without_kind(kind)
        _log.warning("left out %d files of --input_format=%s: %s %s", before - files.rows, kind, file.path, text)
        del samples[kind]
    return files


def _mismatches(files: Iterable[InputFile], kind: InputKind, settings: ReadSettings) -> Iterator[tuple[InputFile, str]]:
    """Yields the files without images where the settings say, each with what to do, up to the first other file."""
    for file in files:
        try:
            text = kind.describe_mismatch(file, settings)
        except OSError:
            return  # a failure record, or the error of `check_records`
        if not text:
            return
        yield file, text
