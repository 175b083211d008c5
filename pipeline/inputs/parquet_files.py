"""Parquet files with a column of images: each row is one image.

An image column is a binary column, or a struct with the encoded image in `bytes` and its path in `path`, as Hugging
Face's `datasets` writes it. Of a row without bytes, the file that `path` names is read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.failures import Failure, FailureReason
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import ColumnValue, ImageRecord
from pipeline.core.settings import OUTPUT_FEATURES, TIMESTAMP_COLUMN
from pipeline.inputs.base import Claim, End, InputFile, InputKind, ReadSettings, ReadTask, TaskPart, unreadable
from pipeline.inputs.image_column import ImageColumn, find_image_column
from pipeline.storage import filesystem

MAGIC = b"PAR1"
BATCH_BYTES = 8 << 20
"""Approximate size of the rows that are decoded at a time. One page of the file is always decoded as a whole."""
BUFFER_BYTES = 1 << 20
"""Stored bytes that are read at a time; without this bound, the whole column of a row group would be in memory."""
_LARGEST_BATCH_ROWS = 1024
_PART_BYTES = 128 << 20
_ARROW_ERRORS = (OSError, pa.ArrowException, ValueError, OverflowError)
"""Of damage, and of values that Python lacks: bytes outside UTF-8 in a text, a date after the year 9999."""


class ParquetFiles(InputKind):
    """Parquet files of images; the key of an image is `path@row`, unless a column holds the keys.

    The positions of a task are offsets in its file, which its rows share evenly: row `i` of `n` is at `size * i // n`.
    So parts are ranges of rows, whatever the row groups are. With ranges, the positions are the indices of the ranges:
    of rows; or of positions, for parts whose rows are unknown as the file could not be opened. Damage costs the rows of
    a row group from the damage on, and belongs to the part with the first of them.
    """

    name = "parquet"
    file_names = r"\.(?:parquet|pq)$"
    has_records = True
    has_byte_offsets = False
    part_bytes = _PART_BYTES  # a part that begins inside a row group decodes the rows before it, too

    def matches(self, start: bytes) -> bool:
        """See `InputKind`."""
        return start.startswith(MAGIC)

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        if not file.size_bytes:
            return "is empty"
        with _opened(file) as table:
            if isinstance(table, str):
                return table
            return "" if table.rows else "has no rows"

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """See `InputKind`."""
        with _opened(file) as table:
            column = None if isinstance(table, str) else find_image_column(table.file, settings.config)
        return column if isinstance(column, str) else ""

    def positions(self, task: ReadTask) -> int:
        """See `InputKind`."""
        (file,) = task.files
        return len(task.ranges) if task.ranges is not None else max(file.size_bytes, 1)

    def size_bytes(self, task: ReadTask) -> int:
        """See `InputKind`."""
        return task.files[0].size_bytes

    def stored_bytes(self, task: ReadTask, start: int) -> int:
        """See `InputKind`."""
        with _opened(task.files[0]) as table:
            return 0 if isinstance(table, str) else table.position(start)

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        (file,) = part.task.files
        if part.start >= part.stop:
            return
        end = end or (lambda: part.stop)
        try:
            with _opened(file) as table:
                if not isinstance(table, str):
                    yield from _Reader(table, settings).read(part, claim, end)
                elif part.start == 0 and claim(0):
                    yield Failure(key_to_bytes(file.name), file.path, "read", "corrupt_record", f"the file {table}")
        except OSError as error:  # the footer or the first rows cannot be read
            yield from _unopened(part, claim, end, error)


def _unopened(part: TaskPart, claim: Claim, end: End, error: OSError) -> Iterator[Failure]:
    """Yields the failures for a part of a file that cannot be opened: for its positions, or each of its ranges."""
    (file,) = part.task.files
    if part.task.ranges is None:
        if claim(part.start):
            yield unreadable(file, error, part.start, end(), aligned=False)
        return
    for index in itertools.takewhile(claim, range(part.start, part.stop)):
        start, stop = part.task.ranges[index]
        yield unreadable(file, error, start, stop, aligned=part.task.aligned)


class _WatchedFile:
    """A file that remembers its error: Arrow raises the same exceptions for damaged bytes.

    Attributes:
      error: the error that ended the reading; None if there was none.
    """

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self.error: OSError | None = None
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            self.error = error
            raise

    def close(self) -> None:
        self.closed = True
        self._stream.close()


@dataclass(frozen=True)
class _Table:
    """An open file.

    Attributes:
      input: the file.
      stream: its bytes.
      file: its reader.
    """

    input: InputFile
    stream: _WatchedFile
    file: pq.ParquetFile

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.file.metadata.num_rows)

    def position(self, row: int) -> int:
        """Returns the position of a row."""
        return max(self.input.size_bytes, 1) * row // max(self.rows, 1)

    def first_row(self, position: int) -> int:
        """Returns the first row at a position or after it."""
        return -(-position * self.rows // max(self.input.size_bytes, 1))


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[_Table | str]:
    """Opens a file; the problem as a text if it is no Parquet file.

    Raises:
      OSError: the file cannot be read.
    """
    with contextlib.closing(_WatchedFile(filesystem.open_read(file.path))) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
        except _ARROW_ERRORS as error:
            if stream.error is not None:
                raise stream.error from error
            yield _describe(stream, error)
            return
        with table:
            yield _Table(file, stream, table)


def _describe(stream: _WatchedFile, error: Exception) -> str:
    stream.seek(0)
    start = stream.read(len(MAGIC))
    if start != MAGIC:
        return "is no Parquet file"
    return f"is a Parquet file that is damaged or cut off: {first_line(error)}"


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Reader:
    """Reads rows of one file."""

    def __init__(self, table: _Table, settings: ReadSettings) -> None:
        self._table = table
        self._settings = settings
        self._column = find_image_column(table.file, settings.config)
        if table.stream.error is not None:
            raise table.stream.error
        config, names = settings.config, table.file.schema_arrow.names
        copied = names if "*" in config.passthrough else [name for name in config.passthrough if name in names]
        image = self._column.name if isinstance(self._column, ImageColumn) else None
        self._copied = [name for name in copied if name not in (image, *OUTPUT_FEATURES, TIMESTAMP_COLUMN)]
        wanted = (image, config.key_feature, *self._copied)
        self._columns = [name for name in names if name in wanted]

    def read(self, part: TaskPart, claim: Claim, end: End) -> Iterator[ImageRecord | Failure]:
        """Yields the rows of a part, or a failure for each that cannot be read."""
        table, ranges = self._table, part.task.ranges
        chosen = [(part.start, part.stop)] if ranges is None else list(ranges[part.start : part.stop])
        if ranges is None or not part.task.aligned:
            chosen = [(table.first_row(start), table.first_row(stop)) for start, stop in chosen]
        last_claim = -1

        def claim_row(row: int) -> bool:
            nonlocal last_claim
            if ranges is None:
                position = table.position(row)
            else:
                position = part.start + next(i for i, (first, last) in enumerate(chosen) if first <= row < last)
            is_claimed = position <= last_claim or claim(position)
            last_claim = max(last_claim, position)
            return is_claimed

        row = chosen[0][0] if chosen else 0
        try:
            for item_row, item in self._rows(chosen):
                if not claim_row(item_row):
                    return
                yield item
                row = item_row + 1
        except OSError as error:
            for first, last in chosen:
                first, last = max(first, row), min(last, table.rows)
                if first < last:
                    if not claim_row(first):
                        return
                    last = min(table.first_row(end()), last) if ranges is None else last
                    yield unreadable(table.input, error, first, last)

    def _rows(self, chosen: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ImageRecord | Failure]]:
        """Yields the rows in some ranges of rows, each with its number."""
        metadata, start = self._table.file.metadata, 0
        for group in range(metadata.num_row_groups):
            stop = start + metadata.row_group(group).num_rows
            row = start
            if any(first < stop and start < last for first, last in chosen):
                try:
                    for batch in self._batches(group):
                        after = row + batch.num_rows
                        for first, last in chosen:
                            first, last = max(first, row), min(last, after)
                            if first < last:
                                items = self._items(batch.slice(first - row, last - first), first)
                                yield from enumerate(items, first)
                        row = after
                        if row >= chosen[-1][1]:
                            return
                    if row < stop:  # Arrow ends some damaged columns in silence
                        raise pa.ArrowInvalid("the row group ends early")
                except _ARROW_ERRORS as error:
                    if self._table.stream.error is not None:
                        raise self._table.stream.error from error
                    if any(first <= row < last for first, last in chosen):
                        text = f"{stop - row} rows cannot be read: {first_line(error)}"
                        yield row, self._failure(row, "corrupt_record", text, stop)
            start = stop

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        metadata = self._table.file.metadata.row_group(group)
        if not self._columns:
            empty = pa.record_batch([pa.nulls(min(metadata.num_rows, _LARGEST_BATCH_ROWS))], [""])
            for start in range(0, metadata.num_rows, _LARGEST_BATCH_ROWS):
                yield empty.slice(0, metadata.num_rows - start)
            return
        row_bytes = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
        rows = min(max(1, BATCH_BYTES // row_bytes), _LARGEST_BATCH_ROWS)
        yield from self._table.file.iter_batches(rows, row_groups=[group], columns=self._columns, use_threads=False)

    def _failure(self, row: int, reason: FailureReason, text: str, stop: int | None = None) -> Failure:
        return Failure(self._address(row), self._source(row, stop), "read", reason, text)

    def _source(self, row: int, stop: int | None = None) -> str:
        return f"{self._table.input.path}@{row}" + ("" if stop is None else f"-{stop}")

    def _address(self, row: int) -> bytes:
        return key_to_bytes(f"{self._table.input.name}@{row}")

    def _items(self, batch: pa.RecordBatch, first: int) -> Iterator[ImageRecord | Failure]:
        """Yields the rows of a batch, the first of which has the number `first`."""
        column, settings = self._column, self._settings
        if isinstance(column, str):
            for row in range(first, first + batch.num_rows):
                yield self._failure(row, "missing_feature", f"no image: the file {column}")
            return
        keys = _keys(batch, settings.config.key_feature)
        copied = [(name, batch.column(name).type, batch.column(name).to_pylist()) for name in self._copied]
        images = column.read(batch, self._table.input, settings)
        for index, image in enumerate(images):
            row = first + index
            key = self._address(row) if keys is None else keys[index]
            if isinstance(key, str):
                yield self._failure(row, "missing_feature", f"no key: {key}")
            elif isinstance(image, Failure):
                stop = row + 1 if image.reason == "read_error" else None  # without it: the rest of a compressed file
                yield Failure(key, self._source(row, stop), image.stage, image.reason, image.message)
            else:
                features = {name: ColumnValue(kind, values[index]) for name, kind, values in copied}
                yield ImageRecord(key, self._source(row), image, features)


def _keys(batch: pa.RecordBatch, name: str | None) -> list[bytes | str] | None:
    """Returns the key of each row, or the reason as a text why it has none; None if no column holds the keys."""
    if name is None:
        return None
    if name not in batch.schema.names:
        return [f"the file has no column '{name}'"] * batch.num_rows
    return [
        f"column '{name}' is blank in this row" if value in (b"", "")
        else value if isinstance(value, bytes)
        else value.encode("utf-8", "surrogateescape") if isinstance(value, str)
        else str(value).encode() if isinstance(value, int) and not isinstance(value, bool)
        else f"column '{name}' holds {'no value' if value is None else type(value).__name__} in this row"
        for value in batch.column(name).to_pylist()
    ]  # fmt: skip
