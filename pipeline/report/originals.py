"""Reads single images of a data set again, from the inputs where they still are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pipeline.core.keys import key_to_bytes, key_to_text
from pipeline.core.records import Address, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.dataset.metadata import live, read_manifests
from pipeline.dataset.originals import kind_of_records
from pipeline.dataset.tables import InputEntry, read_entries
from pipeline.inputs.base import InputFile, ReadSettings, ReadTask
from pipeline.inputs.image_files import IMAGES_PER_TASK, ImageFiles
from pipeline.inputs.tasks import make_tasks, read_tasks
from pipeline.inputs.tfrecord_files import DEFAULT_IMAGE_FEATURE

MAX_SCANNED_BYTES = 4 << 30
"""A file must be read as a whole if its keys do not say where in it their records are; at most so many bytes of such
files are read."""


def read_images(
    output: str, keys: Iterable[bytes], *, max_scanned_bytes: int = MAX_SCANNED_BYTES
) -> Iterator[ImageRecord]:
    """Yields the images of some keys, each once, in any order; leaves out those that cannot be read any more.

    Args:
      output: directory of the data set.
      keys: of the images.
      max_scanned_bytes: bytes to read of files whose keys do not say where their records are.

    Raises:
      OutputError: the data set is damaged.
    """
    wanted = _Wanted(keys, max_scanned_bytes)
    for manifest in reversed(live(read_manifests(output))):
        feature = manifest.image_feature if manifest.image_feature != DEFAULT_IMAGE_FEATURE else None
        settings = ReadSettings(InputConfig((output,), image_feature=feature, key_feature=manifest.key_feature))
        for item in read_tasks(_tasks(read_entries(output, manifest), wanted), settings):
            if isinstance(item, ImageRecord) and wanted.take(item.key):
                yield item
            if wanted.are_found:
                return


class _Wanted:
    """The keys that were not found yet, and how many bytes may be read in search of them."""

    def __init__(self, keys: Iterable[bytes], max_scanned_bytes: int) -> None:
        self._left = set(keys)
        self._scannable_bytes = max_scanned_bytes
        self._offsets: dict[bytes, list[int]] = {}
        self._folders: set[bytes] = set()
        for key in self._left:
            address = Address.parse(key_to_text(key))
            if address is not None:
                self._offsets.setdefault(key_to_bytes(address.path), []).append(address.start)
            self._folders.update(key[: found.start()] for found in re.finditer(b"/", key))

    def __contains__(self, key: bytes) -> bool:
        return key in self._left

    @property
    def are_found(self) -> bool:
        """Whether no key is left."""
        return not self._left

    def take(self, key: bytes) -> bool:
        """Returns whether a key is wanted; from then on it no longer is."""
        if key not in self._left:
            return False
        self._left.remove(key)
        return True

    def ranges(self, entry: InputEntry) -> tuple[tuple[int, int], ...]:
        """Returns the ranges of a file's wanted records; none if the keys do not name any."""
        offsets = self._offsets.get(key_to_bytes(entry.name), ()) if entry.keys == "offset" else ()
        return tuple((offset, offset + 1) for offset in sorted(offsets))

    def may_scan(self, entry: InputEntry) -> bool:
        """Returns whether a file may hold wanted records and may be read as a whole; counts its bytes then."""
        may_hold = entry.keys == "feature" or key_to_bytes(entry.name) in self._folders
        if self.are_found or not may_hold or entry.size_bytes > self._scannable_bytes:
            return False
        self._scannable_bytes -= entry.size_bytes
        return True


def _tasks(entries: Iterable[InputEntry], wanted: _Wanted) -> Iterator[ReadTask]:
    """Yields tasks that read the wanted images of a wave's inputs, and maybe others."""
    images: list[InputFile] = []
    for entry in entries:
        ranges = wanted.ranges(entry)
        if entry.keys == "name":
            if key_to_bytes(entry.name) in wanted:
                images.append(_file(entry, ImageFiles.name))
            if len(images) == IMAGES_PER_TASK:
                yield from make_tasks(images)
                images = []
        elif ranges or wanted.may_scan(entry):
            try:
                kind = kind_of_records(entry.path)
            except OSError:  # the file is gone
                continue
            file = _file(entry, kind.name)
            yield from [ReadTask(kind.name, (file,), ranges)] if ranges else kind.tasks([file])
    yield from make_tasks(images)


def _file(entry: InputEntry, kind: str) -> InputFile:
    return InputFile(entry.path, entry.name, kind, entry.size_bytes, entry.mtime_s)
