"""WebDataset shards: tar archives in which consecutive members with the same name, up to an extension, are one sample.

(https://github.com/webdataset/webdataset.) The name of a sample is the path of its members up to the first dot of the
base name; the rest, in lower case, is the extension and names the member in the sample: `cats/001.jpg` and
`cats/001.json` are the members `jpg` and `json` of the sample `cats/001`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from pipeline.core.failures import Failure, FailureReason
from pipeline.core.keys import key_to_bytes
from pipeline.core.records import Feature, ImageRecord
from pipeline.core.settings import OUTPUT_FEATURES
from pipeline.inputs.base import (
    Claim,
    End,
    InputFile,
    ReadSettings,
    TaskPart,
    unreadable,
    unreadable_ranges,
)
from pipeline.inputs.compressed import CompressibleFiles, Content, content_of
from pipeline.inputs.samples import IMAGES, Sample, advice, image_of, split_name
from pipeline.inputs.tar import Member, TarReader, is_tar
from pipeline.storage import filesystem
from pipeline.tfrecords.byte_window import ByteWindow
from pipeline.tfrecords.tfrecord import CorruptRange

_NUMBERS = frozenset(("cls", "cls2", "class", "count", "index", "inx", "id"))
"""Members that hold one integer as text, as in WebDataset's own decoders."""
_PROBED_SAMPLES = 16
_PROBED_BYTES = 16 << 20


class WebDatasetFiles(CompressibleFiles):
    """WebDataset shards, optionally compressed with gzip; the key of an image is `shard.tar/SAMPLE`.

    A sample belongs to the part in which its first member begins, and damage to the sample
    before it; with ranges, damage belongs to the range in which it begins.
    """

    name = "webdataset"
    file_names = r"\.(?:tar|tar\.gz|tgz)$"

    def matches(self, start: bytes) -> bool:
        """See `InputKind`."""
        return is_tar(start)

    def describe_problem(self, file: InputFile) -> str:
        """See `InputKind`."""
        with filesystem.open_read(file.path) as stream:
            content = content_of(stream, is_tar)
            tar = TarReader(ByteWindow(content.stream, seekable=not content.is_compressed), _PROBED_BYTES)
            items = itertools.islice(tar.items(0), 2)  # the first one may be damaged
            if any(isinstance(item, Member) for item in items):
                return ""
        return "is no tar archive with files" if file.size_bytes else "is empty"

    def describe_mismatch(self, file: InputFile, settings: ReadSettings) -> str:
        """See `InputKind`."""
        found: dict[str, None] = {}
        reader = _Reader(file, replace(settings, max_image_bytes=_PROBED_BYTES))
        with filesystem.open_read(file.path) as stream:
            items = reader.walk(reader.content(stream), 0, sys.maxsize)
            samples = (item for item in items if isinstance(item, Sample))
            for sample in itertools.islice(samples, _PROBED_SAMPLES):
                if image_of(sample.members, settings.config):
                    return ""
                found.update(dict.fromkeys(sample.members))
        return advice(tuple(found), settings.config) if found else ""

    def read(
        self, part: TaskPart, claim: Claim, settings: ReadSettings, end: End | None = None
    ) -> Iterator[ImageRecord | Failure]:
        """See `InputKind`."""
        (file,) = part.task.files
        if part.start >= part.stop:
            return
        if part.task.ranges is None:
            items = _claimed(file, part.start, part.stop, claim, settings, end or (lambda: part.stop))
        elif file.is_compressed:
            items = _in_ranges(file, part.task.ranges, settings) if claim(0) else iter(())
        else:
            ranges = itertools.takewhile(claim, range(part.start, part.stop))
            items = itertools.chain.from_iterable(
                _in_ranges(file, (part.task.ranges[index],), settings) for index in ranges
            )
        yield from items


def _claimed(
    file: InputFile, start: int, stop: int, claim: Claim, settings: ReadSettings, end: End
) -> Iterator[ImageRecord | Failure]:
    """Yields the records of a part of an archive; claims each sample by its offset.

    Damage belongs to the sample before it; only at the file's start there is none.
    """
    reader = _Reader(file, settings)
    position, owned, claimed = start, start == 0, False
    try:
        with filesystem.open_read(file.path) as stream:
            content = reader.content(stream)
            if start and content.is_compressed:
                return  # the first part reads all of it
            for item in reader.walk(content, start, stop):
                if isinstance(item, Sample):
                    owned = item.offset >= start
                if not owned:
                    continue
                if not claimed or (isinstance(item, Sample) and not reader.has_one_position):
                    if not claim(0 if reader.has_one_position else _offset(item)):
                        return
                    claimed = True
                position = max(position, item.stop)
                yield reader.to_record(item)
    except OSError as error:
        if claimed or claim(start):
            if reader.has_one_position:
                yield unreadable(file, error, position, None)
            elif position < (stop := end()):
                yield unreadable(file, error, position, stop, aligned=claimed or position == 0)


def _in_ranges(
    file: InputFile, ranges: Sequence[tuple[int, int]], settings: ReadSettings
) -> Iterator[ImageRecord | Failure]:
    """Yields the records and the damage that begin in ranges of an archive."""
    reader = _Reader(file, settings)
    position, last = ranges[0][0], ranges[-1][1]
    try:
        with filesystem.open_read(file.path) as stream:
            for item in reader.walk(reader.content(stream), position, last):
                position = max(position, item.stop)
                if any(start <= _offset(item) < stop for start, stop in ranges):
                    yield reader.to_record(item)
    except OSError as error:
        yield from unreadable_ranges(file, error, ranges, position)


def _offset(item: Sample | CorruptRange) -> int:
    return item.offset if isinstance(item, Sample) else item.start


def _in_order(sample: Sample | None, damage: Iterable[CorruptRange]) -> Iterator[Sample | CorruptRange]:
    if sample is not None:
        yield sample
    yield from damage


class _Reader:
    """Reads the samples of one archive.

    Attributes:
      has_one_position: whether the archive is compressed, or seemed to be when it was planned.
    """

    def __init__(self, file: InputFile, settings: ReadSettings) -> None:
        self.has_one_position = file.is_compressed
        self._file = file
        self._config = settings.config
        self._limit = settings.max_image_bytes
        self._key_member = (settings.config.key_feature or "").partition(":")[0]
        self._copied = {name.partition(":")[0] for name in settings.config.passthrough}

    def content(self, stream: BinaryIO) -> Content:
        """Returns the content of the archive, given as a stream at its start."""
        content = content_of(stream, is_tar, is_named_so=self._file.is_compressed)
        self.has_one_position = self.has_one_position or content.is_compressed
        return content

    def walk(self, content: Content, start: int, stop: int) -> Iterator[Sample | CorruptRange]:
        """Yields the samples from one that begins before `start`, if any, to the last one that begins before `stop`.

        Each is followed by the damage after its first member. Of samples before `start`, no data is held. With one
        position, `stop` has no meaning.
        """
        tar = TarReader(ByteWindow(content.stream, seekable=not content.is_compressed), self._limit)
        begin = 0 if content.is_compressed else tar.boundary_before(start)
        sample: Sample | None = None
        damage: list[CorruptRange] = []
        for item in tar.items(begin):
            if isinstance(item, CorruptRange):
                damage.append(item)
            elif (parts := split_name(item.name)) is not None:
                name, extension = parts
                if sample is None or name != sample.name:
                    yield from _in_order(sample, damage)
                    if item.offset >= stop and not self.has_one_position:
                        return
                    sample, damage = Sample(item.offset, name), []
                sample.members[extension] = item
                if sample.offset >= start and self._needs(extension) and not item.problem and item.size <= self._limit:
                    sample.data[extension] = tar.data(item)
        yield from _in_order(sample, damage)

    def _needs(self, extension: str) -> bool:
        is_image = (
            extension in IMAGES if self._config.image_feature is None else extension == self._config.image_feature
        )
        return is_image or extension == self._key_member or extension in self._copied or "*" in self._copied

    def to_record(self, item: Sample | CorruptRange) -> ImageRecord | Failure:
        """Returns the record of a sample, or a failure."""
        if isinstance(item, CorruptRange):
            key = key_to_bytes(f"{self._file.name}@{item.start}")
            text = f"no readable member in {item.stop - item.start} bytes: {item.message}"
            return Failure(key, f"{self._file.path}@{item.start}-{item.stop}", "read", "corrupt_record", text)
        key, source = key_to_bytes(f"{self._file.name}/{item.name}"), f"{self._file.path}@{item.offset}"

        def failure(reason: FailureReason, text: str) -> Failure:
            return Failure(key, source, "read", reason, text)

        image = image_of(item.members, self._config)
        if not image:
            return failure("missing_feature", f"no image: the sample {advice(tuple(item.members), self._config)}")
        for name, member in item.members.items():
            if self._needs(name) and name not in item.data:
                if member.problem:
                    return failure("unsupported_format", f"the member {member.name} {member.problem}")
                size = f"{member.size} bytes, more than the {self._limit} that --max_image_bytes allows"
                return failure("too_large", f"the member {member.name} has {size}")
        if self._config.key_feature is not None:
            value = _feature(self._config.key_feature, item.data, "strict")
            if value is None or len(value.values) != 1 or value.kind == "float":
                return failure(
                    "missing_feature", f"no key: the sample has no text or integer '{self._config.key_feature}'"
                )
            found = value.values[0]
            named = found.strip() if isinstance(found, bytes) else str(found).encode()
            if not named:
                return failure("missing_feature", f"no key: '{self._config.key_feature}' is blank")
            key = named
        return ImageRecord(key, source, item.data[image], self._features(item, image))

    def _features(self, sample: Sample, image: str) -> dict[str, Feature]:
        names = self._config.passthrough
        if "*" in names:
            names = tuple(sorted(name for name in sample.members if name != image))
        found = {name: _feature(name, sample.data) for name in names if name != image and name not in OUTPUT_FEATURES}
        return {name: feature for name, feature in found.items() if feature is not None}


def _feature(name: str, data: Mapping[str, bytes], errors: str = "replace") -> Feature | None:
    """Returns a member, or a field of a JSON member, named as `json:field`; None if the sample lacks it.

    Of a character that was cut in half, "replace" makes a question mark; "strict" returns None.
    """
    member, colon, path = name.partition(":")
    if member not in data:
        return None
    if not colon:
        text = data[member].strip()
        is_number = member in _NUMBERS and re.fullmatch(rb"[+-]?\d{1,18}", text)
        return Feature("int64", (int(text),)) if is_number else Feature("bytes", (data[member],))
    try:
        value: Any = json.loads(data[member])
        return _json_feature(value.get(path), errors) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def _json_feature(value: Any, errors: str) -> Feature | None:
    """Returns a JSON value as a feature: text, numbers and lists of them as they are, objects as their JSON text.

    None for null and an empty list.
    """
    if value is None or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    if all(isinstance(item, int) and -(1 << 63) <= item < 1 << 63 for item in values):
        return Feature("int64", tuple(map(int, values)))
    if all(isinstance(item, int | float) for item in values):
        with contextlib.suppress(OverflowError):
            return Feature("float", tuple(map(float, values)))
    texts = (item if isinstance(item, str) else json.dumps(item) for item in values)
    return Feature("bytes", tuple(text.encode("utf-8", errors) for text in texts))
