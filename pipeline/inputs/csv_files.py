"""CSV files with a column of image paths or web addresses: each row is one image.

The first line names the columns. The delimiter is the one of comma, semicolon and tab that the first line has most of.
Fields may be quoted (RFC 4180). Paths are relative to the directory of the file.
"""

from __future__ import annotations

import bisect
import contextlib
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import pyarrow as pa

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ColumnValue, ImageRecord
from pipeline.core.settings import OUTPUT_FEATURES, InputConfig
from pipeline.images.formats.registry import EXTENSIONS
from pipeline.inputs.base import (
    Claim,
    End,
    InputFile,
    InputKind,
    ReadSettings,
    ReadTask,
    TaskPart,
    unreadable,
    unreadable_ranges,
)
from pipeline.inputs.referenced import read_referenced
from pipeline.inputs.text import open_text
from pipeline.storage.web_addresses import is_web_address

_ROWS = 1024
"""Rows whose images are read at a time: with web addresses, the slowest one of them delays the next rows."""
_PROBED_ROWS = 16
_LARGEST_FIELD = 16 << 20
_IMAGE_BYTES_PER_BYTE = 2048
"""Assumed bytes of images for each byte of a file: a row of 128 bytes for an image of 256 KiB."""
_PART_BYTES = 256 << 20
_LARGEST_TASK_BYTES = 16 << 30
"""Bounds the number of parts of a file."""


class CsvFiles(InputKind):
    """CSV files of image paths; the key of an image is `path@row`, unless a column holds the keys.

    The positions of a task are the offsets of its file's rows, or the indices of its ranges, if any: of rows; or of
    offsets, for parts that could not be read. Whether a line begins a row shows only from the start of the file: each
    part parses the rows before it, too.
    """

    name = "csv"
    file_names = r"\.(?:csv|tsv)$"
    in_directories = False
    has_records = True
    has_byte_offsets = False
    part_bytes = _PART_BYTES

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        with open_text(file.path, newline="") as text:
            try:
                return "" if next(_Table(text).rows(), None) is not None else "has no rows"
            except csv.Error as error:
                return f"is no CSV file ({error})"

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """See `InputKind`."""
        with open_text(file.path, newline="") as text, contextlib.suppress(csv.Error):
            table = _Table(text)
            return "" if table.image_column(settings.config) is not None else table.advice(settings.config)
        return ""

    def positions(self, task: ReadTask) -> int:
        """See `InputKind`."""
        return max(1, task.files[0].size_bytes) if task.ranges is None else len(task.ranges)

    def size_bytes(self, task: ReadTask) -> int:
        """See `InputKind`: of the images, as the file has only their paths."""
        return min(task.files[0].size_bytes * _IMAGE_BYTES_PER_BYTE, _LARGEST_TASK_BYTES)

    def stored_bytes(self, task: ReadTask, start: int) -> int:
        """See `InputKind`."""
        (file,) = task.files
        with open_text(file.path, newline="") as text:
            offset = next((row.offset for row in _Table(text).rows() if row.number >= start), file.size_bytes)
        return self.size_bytes(task) * offset // max(1, file.size_bytes)

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        (file,) = part.task.files
        if part.start < part.stop:
            yield from _read(file, _Chosen(part, claim, end or (lambda: part.stop)), settings)


@dataclass(frozen=True)
class _Row:
    """A row.

    Attributes:
      number: of the row, from 0; the line of column names does not count.
      offset: of its first byte, without a mark at the start of the file.
      fields: its values.
    """

    number: int
    offset: int
    fields: list[str]


class _Chosen:
    """The rows of a part of a task.

    Rows have places: their numbers for ranges of rows, else their offsets.
    """

    def __init__(self, part: TaskPart, claim: Claim, end: End) -> None:
        ranges = part.task.ranges
        self._part = part
        self._claim = claim
        self._end = end
        self._aligned = ranges is not None and part.task.aligned
        self._ranges = ((part.start, part.stop),) if ranges is None else ranges[part.start : part.stop]
        self._starts = [start for start, _ in self._ranges]
        self._stops = list(itertools.accumulate((stop for _, stop in self._ranges), max))
        self._last_claim = -1

    def place(self, row: _Row) -> int:
        """Returns the place of a row."""
        return row.number if self._aligned else row.offset

    def of(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        """Yields the chosen ones of all rows of a file; claims each, or its range, before."""
        for row in rows:
            place = self.place(row)
            if place >= self._stops[-1]:
                return
            index = bisect.bisect(self._starts, place) - 1
            if index >= 0 and place < self._stops[index]:
                if not self._claims(index, place):
                    return
                yield row

    def _claims(self, index: int, place: int) -> bool:
        """Returns whether the row at a place in a range may be read; a range is claimed once, at its first row."""
        position = place if self._part.task.ranges is None else self._part.start + index
        if position > self._last_claim:
            if not self._claim(position):
                return False
            self._last_claim = position
        return True

    def unread(self, file: InputFile, error: OSError, place: int) -> Iterator[Failure]:
        """Yields the failures for the chosen rows from a place on; `place` is 0 if none was read."""
        if self._part.task.ranges is None:
            start = max(place, self._part.start)
            if (self._last_claim >= 0 or self._claims(0, start)) and start < (stop := self._end()):
                yield unreadable(file, error, start, stop, aligned=False)
            return
        for index, span in enumerate(self._ranges):
            if place < span[1]:
                if not self._claims(index, place):
                    return
                yield from unreadable_ranges(file, error, (span,), place, aligned=self._aligned)


class _Table:
    """The rows of an open CSV file."""

    def __init__(self, text: TextIO) -> None:
        csv.field_size_limit(_LARGEST_FIELD)
        first = text.readline()
        text.seek(0)
        self._encoding = "utf-16-le" if text.encoding == "utf-16" else "utf-8"
        self._offset = 0
        self._reader = csv.reader(self._lines(text), delimiter=max(",;\t", key=first.count))
        self.names = next(self._reader, [])
        self._unread = self._rows()
        self._probed = list(itertools.islice(self._unread, _PROBED_ROWS))

    def _lines(self, text: TextIO) -> Iterator[str]:
        for line in text:
            self._offset += len(line.encode(self._encoding, "surrogateescape"))
            yield line

    def _rows(self) -> Iterator[_Row]:
        start, number = self._offset, 0
        for fields in self._reader:
            if fields:  # no blank line
                yield _Row(number, start, fields)
                number += 1
            start = self._offset

    def rows(self) -> Iterator[_Row]:
        """Yields the rows, once; skips blank lines."""
        return itertools.chain(self._probed, self._unread)

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
        """Returns the columns that hold names of images; if none does, those that hold web addresses."""
        return self._columns_with(lambda text: text.lower().endswith(EXTENSIONS)) or self._columns_with(is_web_address)

    def _columns_with(self, is_wanted: Callable[[str], bool]) -> list[int]:
        return [
            index
            for index in range(len(self.names))
            if any(index < len(row.fields) and is_wanted(row.fields[index]) for row in self._probed)
        ]


def _read(file: InputFile, chosen: _Chosen, settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
    """Yields the images of chosen rows. If the file cannot be read so far, failures stand for the rest of them."""
    place = 0
    try:
        with open_text(file.path, newline="") as text:
            table = _Table(text)
            rows = chosen.of(table.rows())
            while batch := list(itertools.islice(rows, _ROWS)):
                yield from _read_batch(table, file, batch, settings)
                place = chosen.place(batch[-1]) + 1
    except (csv.Error, OSError) as error:
        reason = error if isinstance(error, OSError) else OSError(f"the file is no CSV from here on: {error}")
        yield from chosen.unread(file, reason, place)


def _read_batch(
    table: _Table, file: InputFile, batch: Sequence[_Row], settings: ReadSettings
) -> Iterator[ImageRecord | Failure]:
    config, column = settings.config, table.image_column(settings.config)
    paths = [row.fields[column] if column is not None and column < len(row.fields) else "" for row in batch]
    images = read_referenced([path for path in paths if path], file, settings)
    for row, path in zip(batch, paths, strict=True):
        values = dict(zip(table.names, row.fields, strict=False))
        key, source = key_to_bytes(f"{file.name}@{row.number}"), f"{file.path}@{row.number}"
        image = next(images) if path else None
        if config.key_feature is not None:
            if not values.get(config.key_feature):
                text = f"no key: the row has no '{config.key_feature}'"
                yield Failure(key, source, "read", "missing_feature", text)
                continue
            key = key_to_bytes(values[config.key_feature])
        if isinstance(image, bytes):
            yield ImageRecord(key, source, image, _features(values, column, table.names, config))
        elif image is not None:
            if image.reason == "read_error":  # without an end, it would mean the rest of a compressed file
                source = f"{source}-{row.number + 1}"
            yield Failure(key, source, image.stage, image.reason, image.message)
        elif column is None:
            yield Failure(key, source, "read", "missing_feature", f"no image: the file {table.advice(config)}")
        else:
            text = f"no image: the row has no value in column '{table.names[column]}'"
            yield Failure(key, source, "read", "missing_feature", text)


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
