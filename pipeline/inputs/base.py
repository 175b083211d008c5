"""The interface of input kinds: recognising files, cutting them into tasks, reading tasks to records and failures.

A task is a range of *positions*: a runner can split it into parts. The reader claims each position before it reads the
position, and stops at the first refused claim: another worker then has the rest of the task.
"""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from pipeline.core.failures import Failure
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import Address, ImageRecord
from pipeline.core.settings import DecodeConfig, InputConfig

UNKNOWN_BYTES = 256 << 10
"""Assumed size of a file of unknown size; the sizes of remote images in a list file are not looked up."""

NO_END = 1 << 62
"""The end of a range of a compressed file up to its end: its uncompressed size is unknown."""

Claim = Callable[[int], bool]
"""Called with each position, in ascending order, before the position is read; False ends the reading."""
End = Callable[[], int]
"""Called if reading ends early. Freezes the end of the part and returns it (exclusive)."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.

    Attributes:
      path: its path or URI.
      name: its name in the keys of its records: its path relative to the inputs' base, with `/`; for a line of a list
        file, the unchanged line.
      kind: name of its input kind.
      size_bytes: its size when the run was planned; 0 if unknown.
      mtime_s: modification time, in seconds since 1970.
    """

    path: str
    name: str
    kind: str
    size_bytes: int
    mtime_s: float

    @property
    def is_compressed(self) -> bool:
        """Whether the file is compressed with gzip, by its name; readers go by its first bytes."""
        return self.path.lower().endswith((".gz", ".tgz"))


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Files of one kind that are read together, or parts of one file.

    Attributes:
      kind: name of the input kind.
      files: the files.
      ranges: offset ranges (start, stop) of a single file whose records are read; None for all records.
      aligned: whether a record is known to begin at the start of each range. If not, and the kind has no byte offsets,
        the ranges are positions of a task without ranges: of a part whose records are unknown.
    """

    kind: str
    files: tuple[InputFile, ...]
    ranges: tuple[tuple[int, int], ...] | None = None
    aligned: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles compactly: all tasks of a wave wait in the runner's memory, and the paths of one task are alike."""
        columns = tuple(zip(*map(_FILE_FIELDS, self.files), strict=True))
        fields = pickle.dumps((self.kind, columns, self.ranges, self.aligned), pickle.HIGHEST_PROTOCOL)
        return _unpickle_task, (zlib.compress(fields, 1),)


_FILE_FIELDS = attrgetter(*(field.name for field in dataclasses.fields(InputFile)))


def _unpickle_task(compressed: bytes) -> ReadTask:
    kind, columns, ranges, aligned = pickle.loads(zlib.decompress(compressed))
    return ReadTask(kind, tuple(InputFile(*row) for row in zip(*columns, strict=True)), ranges, aligned)


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A part of a task.

    Attributes:
      task: the task.
      start: first position of the part.
      stop: last position of the part (exclusive).
      size_bytes: approximate number of bytes to read.
    """

    task: ReadTask
    start: int
    stop: int
    size_bytes: int = 0

    def bytes_between(self, start: int, stop: int) -> int:
        """Returns the approximate number of bytes to read between two positions of the part."""
        return self.size_bytes * (stop - start) // max(1, self.stop - self.start)


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Settings of the reader.

    Attributes:
      config: names of the features, and other flags about inputs.
      max_image_bytes: a larger image is a failure and is not read into memory.
    """

    config: InputConfig
    max_image_bytes: int = DecodeConfig.max_image_bytes


class InputKind(Protocol):
    r"""A kind of image input. Custom kinds subclass it; instances can be pickled.

    A subclass defines `name`, `file_names` and `read_file`; to read a file in parts, it overrides the other methods.

    Attributes:
      name: the value of `--input_format`.
      file_names: a regular expression (RE2 syntax, case ignored) that is found in the paths of files of this kind, such
        as `\.zip$`.
      has_records: whether a file holds records with sources `path@offset`; otherwise a file is one image.
      has_byte_offsets: whether these offsets count bytes of the uncompressed file, not, for example, rows.
      in_directories: whether a directory search finds files of this kind; otherwise the user must name each file.
      is_list: whether a file of this kind names the files to read, which `listed` yields.
      part_bytes: smallest size of the parts into which a task is first split; 0 if any size will do.
    """

    name: str
    file_names: str
    has_records: bool = False
    has_byte_offsets: bool = True
    in_directories: bool = True
    is_list: bool = False
    part_bytes: int = 0

    def listed(self, path: str) -> Iterator[InputFile]:
        """Yields the files that a list names.

        Raises:
          InputError: the list cannot be used.
        """
        raise NotImplementedError(f"{self.name} files hold images; they are no lists")

    def describe_problem(self, file: InputFile) -> str:
        """Returns the reason why a file has no readable records, such as `is empty`; an empty text if it has some.

        Reads only the beginning of the file.

        Raises:
          OSError: the file cannot be read.
        """
        return ""

    def matches(self, start: bytes) -> bool:
        """Returns whether the first bytes of a file (512, or all of them) are those of a file of this kind."""
        return False

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """Returns what the first records of a readable file lack, and what to do; an empty text if they have images.

        Such as `has file_name, image, label, but no image/encoded; say --image_feature=image`.

        Raises:
          OSError: the file cannot be read.
        """
        return ""

    def tasks(self, files: Sequence[InputFile]) -> Iterator[ReadTask]:
        """Yields tasks that together read files of this kind."""
        for file in files:
            yield ReadTask(self.name, (file,))

    def positions(self, task: ReadTask) -> int:
        """Returns the number of positions of a task; positions begin with 0."""
        return len(task.files)

    def size_bytes(self, task: ReadTask) -> int:
        """Returns the approximate number of bytes that a task reads."""
        return sum(file.size_bytes or UNKNOWN_BYTES for file in task.files)

    def stored_bytes(self, task: ReadTask, start: int) -> int:
        """Returns the approximate number of bytes that a task reads before the record with the source `path@start`.

        Raises:
          OSError: the file cannot be read.
        """
        return sum(max(0, min(start, last) - first) for first, last in task.ranges or ((0, self.size_bytes(task)),))

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """Yields each record of a part of a task, or a failure if it cannot be read.

        Args:
          part: the part.
          claim: returns whether a position may be read.
          settings: of the reader.
          end: freezes the end of a part that may shrink while it is read.
        """
        del end
        for index, file in enumerate(part.task.files[part.start : part.stop], part.start):
            if not claim(index):
                return
            try:
                for item in self.read_file(file, settings):
                    if part.task.ranges is None or _is_within(item.source, part.task.ranges):
                        yield item
            except OSError as error:
                yield unreadable(file, error)

    def read_file(self, file: InputFile, settings: ReadSettings) -> Iterator[ImageRecord | Failure]:
        """Yields each record of a file, or a failure if it cannot be read.

        Raises:
          OSError: the file cannot be read any further.
        """
        ...


def _is_within(source: str, ranges: Sequence[tuple[int, int]]) -> bool:
    address = Address.parse(source)
    return address is not None and any(start <= address.start < stop for start, stop in ranges)


def unreadable(
    file: InputFile, error: OSError, start: int = 0, stop: int | None = None, *, aligned: bool = True
) -> Failure:
    """Returns the failure for the unreadable bytes of a file.

    The failure's source is the file if nothing was read, else `path@start-stop`, or `path@start` for the rest of a
    compressed file (no `stop`, or `NO_END`). Its key names the record at `start`, or the range if no record is known to
    begin there.
    """
    stop = None if stop == NO_END else stop
    text = error.strerror or " ".join(str(error).split())
    name, source = file.name, file.path
    if stop is None and start:
        name, source = f"{name}@{start}", f"{source}@{start}"
    elif stop is not None and (start or stop < file.size_bytes):
        name, source = (
            f"{name}@{start}" if aligned else f"{name}@{start}-{stop}",
            f"{source}@{start}-{stop}",
        )
    return Failure(key_to_bytes(name), source, "read", "read_error", text)


def unreadable_ranges(
    file: InputFile, error: OSError, ranges: Sequence[tuple[int, int]], position: int, *, aligned: bool = True
) -> Iterator[Failure]:
    """Yields a failure for each range of a file that could not be read to its end, but only up to a position."""
    for start, stop in ranges:
        if position < stop:
            yield unreadable(file, error, max(start, position), stop, aligned=aligned)
