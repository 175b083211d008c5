"""The original bytes of failures: what could not be embedded."""

from __future__ import annotations

import contextlib
import re
import zlib

from pipeline.core.failures import Failure
from pipeline.core.records import Address, ImageRecord
from pipeline.core.settings import InputConfig
from pipeline.dataset.metadata import read_manifests
from pipeline.inputs.base import InputFile, InputKind, ReadSettings, ReadTask, TaskPart
from pipeline.inputs.compressed import content_of
from pipeline.inputs.image_files import fetch_all
from pipeline.inputs.tasks import find_kind, find_kind_of, first_bytes, registered_kinds
from pipeline.inputs.tfrecord_files import TFRecordFiles, record_bytes
from pipeline.storage import filesystem
from pipeline.storage.web_addresses import is_web_address
from pipeline.storage.web_client import FetchFailure
from pipeline.tfrecords.gzip_stream import ByteStream

_CHUNK_BYTES = 4 << 20
_LARGEST_BYTES = 1 << 40


def original_bytes(output: str, failure: Failure) -> bytes:
    """Returns the bytes of a failure of the data set in `output`: an image, a record, or a damaged range.

    Raises:
      OSError: the bytes cannot be read any more.
    """
    if is_web_address(failure.source):
        return _fetch(failure.source)
    address = Address.parse(failure.source)
    if address is None or filesystem.exists(failure.source):
        return filesystem.read_bytes(failure.source)
    path, start, stop = address.path, address.start, address.stop
    kind = kind_of_records(path)
    if stop is not None:
        if not kind.has_byte_offsets:
            raise OSError(f"{failure.source} are rows that cannot be read; there are no bytes to show")
        with filesystem.open_read(path) as file:
            content = content_of(file, kind.matches)
            if content.is_compressed:
                return _cut_out(content.stream, start, stop)
            file.seek(start)
            return file.read(stop - start)
    task = ReadTask(kind.name, (InputFile(path, path, kind.name, 0, 0.0),), ((start, start + 1),))
    for name in (None, *sorted({manifest.image_feature for manifest in read_manifests(output)})):
        settings = ReadSettings(InputConfig((path,), image_feature=name), _LARGEST_BYTES)
        item = next(kind.read(TaskPart(task, 0, 1), lambda _: True, settings), None)
        if isinstance(item, ImageRecord):
            return item.image
    data = record_bytes(path, start) if isinstance(kind, TFRecordFiles) else None
    if data is None:
        raise OSError(f"{failure.source} holds no record any more; the file has changed")
    return data


def _fetch(source: str) -> bytes:
    """Returns what a web address serves now, also one of a private network: the user has asked for this address."""
    (found,) = fetch_all([source], ReadSettings(InputConfig((source,), allow_private_addresses=True), _LARGEST_BYTES))
    if isinstance(found, FetchFailure):
        raise OSError(f"{source}: {found.message}")
    return found


def kind_of_records(path: str) -> InputKind:
    """Returns the kind of a file of records: by its first bytes, or by its name if these are damaged."""
    kinds = [kind for kind in registered_kinds() if kind.has_records]
    named = (kind for kind in kinds if re.search(kind.file_names, path, re.IGNORECASE))
    return find_kind_of(first_bytes(path), kinds) or next(named, find_kind(TFRecordFiles.name))


def _cut_out(stream: ByteStream, start: int, stop: int) -> bytes:
    """Returns the uncompressed bytes from `start` to `stop`, or fewer if the stream ends earlier."""
    pieces: list[bytes] = []
    position = 0
    with contextlib.suppress(EOFError, zlib.error):  # the compressed bytes may be damaged in this range
        while position < stop and (chunk := stream.read(min(stop - position, _CHUNK_BYTES))):
            pieces.append(chunk[max(0, start - position) :])
            position += len(chunk)
    return b"".join(pieces)[: stop - start]
