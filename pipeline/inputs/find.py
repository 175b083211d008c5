"""What there is to read: inputs expanded to files, and files cut into tasks for the workers."""

from __future__ import annotations

import codecs
import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.core.errors import InputError
from pipeline.core.settings import InputConfig, InputFormat
from pipeline.storage import filesystem
from pipeline.storage.filesystem import FileStat
from pipeline.tfrecords import tfrecord
from pipeline.tfrecords.gzip_stream import GzipStream

_log = logging.getLogger(__name__)

FileKind = Literal["tfrecord", "image"]

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
LIST_EXTENSIONS = (".txt", ".lst", ".list")
TFRECORD_NAME = re.compile(
    r"(?:\.tfrecords?(?:[-_.]\d+(?:-of-\d+)?)?|-\d{5}-of-\d{5}|\.tfrec)(?:\.gz)?$", re.IGNORECASE
)
"""Matches `a.tfrecord`, `a.tfrecords.gz`, `a.tfrecord-00000-of-00010` and `train-00000-of-01024`."""

_GZIP_MAGIC = b"\x1f\x8b"
_PROBE_BYTES = 16 << 20
"""Bytes at the beginning of an uncompressed file in which a first record is looked for."""
UNKNOWN_BYTES = 256 << 10
"""What a file whose size is not known counts for: remote images of a list file are not looked up."""
IMAGES_PER_TASK = 64
"""Image files that one task names."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.

    Attributes:
      path: its path or URI.
      name: what its records' keys are made of: its path relative to the inputs' base, with `/`; for a
        line of a list file, the line as it stands.
      kind: whether it is an image or a file of records.
      size_bytes: its size when the run was planned.
      mtime_s: when it was last changed, in seconds since 1970.
    """

    path: str
    name: str
    kind: FileKind
    size_bytes: int
    mtime_s: float

    @property
    def is_compressed(self) -> bool:
        """Whether the file's bytes are gzip, by its name."""
        return self.path.lower().endswith(".gz")


@dataclass(frozen=True, slots=True)
class RecordFile:
    """A TFRecord file to read; uncompressed ones are cut into ranges that several workers read.

    Attributes:
      file: the file.
      ranges: the byte ranges (start, stop) whose records are read; None for the whole file.
      aligned: whether a record is known to begin at the start of each range.
    """

    file: InputFile
    ranges: tuple[tuple[int, int], ...] | None = None
    aligned: bool = True


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files that are read one after the other."""

    files: tuple[InputFile, ...]


ReadTask = RecordFile | ImageFiles


def find_inputs(config: InputConfig, is_output: Callable[[str], bool] = lambda path: False) -> tuple[InputFile, ...]:
    """Returns the files that a run is to read, by path, each once.

    Args:
      config: what to look for.
      is_output: says of a path whether a run wrote that file to an output data set; it is no input then.

    Raises:
      InputError: a pattern matched nothing, the files are not of the kind that was asked for, or two have one name.
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
            kind = None if hidden else _kind(stat.path, config.input_format, explicit=not is_directory)
            if kind is None:
                ignored[os.path.splitext(stat.path)[1] or "no extension"] += 1
            elif kind == "list":
                for file in _read_list(stat.path):
                    repeated += files.setdefault(file.path, file).name != file.name
            else:
                name = _relative(stat.path, base)
                files.setdefault(stat.path, InputFile(stat.path, name, kind, stat.size_bytes, stat.mtime_s))
    if ignored:
        kinds = ", ".join(f"{count} of {extension}" for extension, count in ignored.most_common(5))
        _log.warning(
            "ignored %d files that are neither images nor TFRecords by their names: %s", ignored.total(), kinds
        )
    if repeated:
        _log.warning(
            "%d list lines name a file that an earlier one names differently; it has the earlier key",
            repeated,
        )
    if not files:
        detail = f"; {ignored.total()} other files were ignored, name their --input_format" if ignored else ""
        raise InputError(f"no input matched {' '.join(config.input)}; expected image files or TFRecords{detail}")
    _check_names(files.values())
    return tuple(files[path] for path in sorted(files))


def _check_names(files: Iterable[InputFile]) -> None:
    """Makes sure that no two files give their records the same keys, which a line of a list file may do."""
    paths: dict[str, str] = {}
    for file in files:
        other = paths.setdefault(file.name, file.path)
        if other != file.path:
            raise InputError(
                f"{other} and {file.path} would have the same key, {file.name}; write the list's line in another way, "
                "such as with its whole path"
            )


def _match(pattern: str, is_output: Callable[[str], bool]) -> list[FileStat]:
    try:
        found = filesystem.match(pattern)
    except OSError as error:
        raise InputError(f"--input={pattern} cannot be listed: {error}") from error
    return [stat for stat in found if not is_output(stat.path)]


def _kind(path: str, wanted: InputFormat, *, explicit: bool) -> FileKind | Literal["list"] | None:
    """Returns what a file is; None where its name does not tell and it was not named itself."""
    if wanted == "images":
        return "image"
    if wanted != "auto":
        return wanted
    name = posixpath.basename(path.replace(os.sep, "/")).lower()
    if name.endswith(IMAGE_EXTENSIONS):
        return "image"
    if TFRECORD_NAME.search(name):
        return "tfrecord"
    if not explicit:
        return None
    if name.endswith(LIST_EXTENSIONS):
        return "list"
    raise InputError(f"cannot tell from its name what {path} is; say --input_format=tfrecord, images or list")


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
    """Returns the deepest directory that holds all of some directories, or None if there is none."""
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


def _read_list(path: str) -> Iterator[InputFile]:
    """Yields the images that the lines of a list file name; blank lines name none."""
    try:
        text = filesystem.read_bytes(path).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise InputError(f"list file {path} cannot be read: {error}") from error
    for line in re.split(r"\r\n|\r|\n", text):  # and nowhere else: a file's name may hold what Unicode calls a line end
        if not line.strip():
            continue
        target = filesystem.absolute(line.strip())
        # A file that is not there stays in the plan: reading it makes the failure that says so.
        stat = (None if filesystem.is_remote(target) else filesystem.stat_file(target)) or FileStat(target, 0, 0.0)
        yield InputFile(target, line, "image", stat.size_bytes, stat.mtime_s)


def check_records(files: Sequence[InputFile]) -> None:
    """Makes sure that there is something to read in the TFRecords of a run, if it reads nothing else.

    One file that is no TFRecord is a failure among others; when none of them is one, it is a mistake
    in the command. In the usual case this reads the first record of one file.

    Raises:
      InputError: no file is an image, or has a record near its beginning.
    """
    unreadable: list[tuple[InputFile, OSError]] = []
    for file in files:
        try:
            if file.kind == "image" or _begins_with_records(file):
                return
        except OSError as error:
            unreadable.append((file, error))
    if unreadable:
        file, reason = unreadable[0]
        raise InputError(f"{file.path} cannot be read: {reason}") from reason
    first = files[0]
    what = "is empty" if first.size_bytes == 0 else "is no TFRecord"
    if not first.is_compressed and _first_bytes(first.path, 2) == _GZIP_MAGIC:
        what = "is compressed, which its name must tell by ending in .gz"
    others = f", nor is any of the other {len(files) - 1} inputs" if len(files) > 1 else ""
    raise InputError(
        f"no records: {first.path} {what}{others}; expected TFRecords of tf.train.Example; for image files say "
        "--input_format=images"
    )


def _first_bytes(path: str, count: int) -> bytes:
    with filesystem.open_read(path) as stream:
        return stream.read(count)


def _begins_with_records(file: InputFile) -> bool:
    """Says whether a record can be made out, be it behind a damaged one.

    Raises:
      OSError: the file cannot be read.
    """
    with filesystem.open_read(file.path) as stream:
        if file.is_compressed:
            items = tfrecord.read_records_sequential(GzipStream(stream))
        else:
            items = tfrecord.read_records(stream, 0, _PROBE_BYTES)
        return any(not isinstance(item, tfrecord.CorruptRange) for item in items)


def make_tasks(files: Iterable[InputFile]) -> list[ReadTask]:
    """Returns what the workers are to read: each file of records, and groups of images."""
    files = list(files)
    images = [file for file in files if file.kind == "image"]
    groups = [images[start : start + IMAGES_PER_TASK] for start in range(0, len(images), IMAGES_PER_TASK)]
    return [
        *(RecordFile(file) for file in files if file.kind == "tfrecord"),
        *(ImageFiles(tuple(group)) for group in groups),
    ]
