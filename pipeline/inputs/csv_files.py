"""CSV files with a column of image paths: each row is one image.

The first line names the columns. The delimiter is the one of comma, semicolon and tab that the first line has most of.
Fields may be quoted (RFC 4180). Paths are relative to the directory of the file.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import TextIO

import pyarrow as pa

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ColumnValue, ImageRecord
from pipeline.core.settings import OUTPUT_FEATURES, InputConfig
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.base import Claim, End, InputFile, InputKind, ReadSettings, ReadTask, TaskPart, unreadable
from pipeline.inputs.referenced import read_referenced
from pipeline.inputs.text import open_text

_ROWS = 64
"""Rows whose images are read at a time."""
_PROBED_ROWS = 16
_LARGEST_FIELD = 16 << 20


class CsvFiles(InputKind):
    """CSV files of image paths; the key of an image is `path@row`, unless a column holds the keys.

    One worker reads all rows of a file, which has one position; with ranges of rows, the positions are their indices.
    """

    name = "csv"
    file_names = r"\.(?:csv|tsv)$"
    in_directories = False
    has_records = True
    has_byte_offsets = False

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        with open_text(file.path, newline="") as text:
            try:
                return "" if next(_Table(text).rows(), None) is not None else "has no rows"
            except csv.Error as error:
                return f"is no CSV file ({error})"

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """See `InputKind`."""
        with open_text(file.path, newline="") as text:
            table = _Table(text)
            return "" if table.image_column(settings.config) is not None else table.advice(settings.config)

    def positions(self, task: ReadTask) -> int:
        """See `InputKind`."""
        return 1 if task.ranges is None else len(task.ranges)

    def stored_bytes(self, task: ReadTask, start: int) -> int:
        """See `InputKind`."""
        with open_text(task.files[0].path, newline="") as text:
            return sum(len(",".join(row)) + 1 for row in itertools.islice(_Table(text).rows(), start))

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        (file,) = part.task.files
        for index in range(part.start, part.stop):
            if not claim(index):
                return
            first, last = (0, None) if part.task.ranges is None else part.task.ranges[index]
            row = first
            try:
                with open_text(file.path, newline="") as text:
                    for item in _read(_Table(text), file, first, last, settings):
                        yield item
                        row += 1
            except csv.Error as error:
                source = f"{file.path}@{row}"
                yield Failure(key_to_bytes(f"{file.name}@{row}"), source, "read", "corrupt_record", f"no CSV: {error}")
            except OSError as error:
                yield unreadable(file, error, row, None)


class _Table:
    """The rows of an open CSV file."""

    def __init__(self, text: TextIO) -> None:
        csv.field_size_limit(_LARGEST_FIELD)
        first = text.readline()
        text.seek(0)
        delimiter = max(",;\t", key=first.count)
        self._reader = csv.reader(text, delimiter=delimiter)
        self.names = next(self._reader, [])
        self._probed = list(itertools.islice(self._reader, _PROBED_ROWS))

    def rows(self) -> Iterator[list[str]]:
        """Yields the rows, once; skips blank lines."""
        return (row for row in itertools.chain(self._probed, self._reader) if row)

    def image_column(self, config: InputConfig) -> int | None:
        """Returns the index of the column of image paths; None if there is none, or more than one."""
        if config.image_feature is not None:
            return self.names.index(config.image_feature) if config.image_feature in self.names else None
        found = self._columns_of_images()
        return found[0] if len(found) == 1 else None

    def advice(self, config: InputConfig) -> str:
        """Returns the reason why there is no such column, and what to do."""
        found = self._columns_of_images()
        if config.image_feature is not None:
            reason = f"but no {config.image_feature}"
        else:
            reason = "of which several hold paths of images" if found else "none of which holds paths of images"
        choice = self.names[found[0]] if found else "NAME"
        return f"has {', '.join(self.names)}, {reason}; say --image_feature={choice}"

    def _columns_of_images(self) -> list[int]:
        return [
            index
            for index in range(len(self.names))
            if any(index < len(row) and row[index].lower().endswith(EXTENSIONS) for row in self._probed)
        ]


def _read(
    table: _Table, file: InputFile, first: int, last: int | None, settings: ReadSettings
) -> Iterator[ImageRecord | Failure]:
    """Yields the images of the rows [first, last)."""
    rows = enumerate(table.rows())
    chosen = itertools.islice(rows, first, last)
    column = table.image_column(settings.config)
    while batch := list(itertools.islice(chosen, _ROWS)):
        yield from _read_batch(table, file, batch, column, settings)


def _read_batch(
    table: _Table, file: InputFile, batch: Sequence[tuple[int, list[str]]], column: int | None, settings: ReadSettings
) -> Iterator[ImageRecord | Failure]:
    config = settings.config
    paths = [row[column] if column is not None and column < len(row) else "" for _, row in batch]
    images = read_referenced([path for path in paths if path], file, settings)
    for (number, row), path in zip(batch, paths, strict=True):
        values = dict(zip(table.names, row, strict=False))
        key, source = key_to_bytes(f"{file.name}@{number}"), f"{file.path}@{number}"
        image = next(images) if path else None
        if config.key_feature is not None:
            if not values.get(config.key_feature):
                text = f"no key: the row has no '{config.key_feature}'"
                yield Failure(key, source, "read", "missing_feature", text)
                continue
            key = key_to_bytes(values[config.key_feature])
        if image is None:
            no_value = f"row has no value in column '{table.names[column]}'" if column is not None else ""
            text = no_value or f"file {table.advice(config)}"
            yield Failure(key, source, "read", "missing_feature", f"no image: the {text}")
        elif isinstance(image, Failure):
            yield Failure(key, source, image.stage, image.reason, image.message)
        else:
            yield ImageRecord(key, source, image, _features(values, column, table.names, config))


def _features(
    values: dict[str, str], column: int | None, names: Sequence[str], config: InputConfig
) -> dict[str, ColumnValue]:
    image = "" if column is None else names[column]
    copied = values if "*" in config.passthrough else [name for name in config.passthrough if name in values]
    return {
        name: ColumnValue(pa.string(), values[name].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        for name in copied
        if name != image and name not in OUTPUT_FEATURES
    }
