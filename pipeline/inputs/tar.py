"""Walking over the members of any part of an intact or damaged tar archive.

An archive is a sequence of members: a header of 512 bytes, then the data, padded to 512 bytes (POSIX.1-2017, `pax`, and
the GNU tar manual). A header has a checksum, the data has none. An extended header before it may hold a longer name or
size. Zero bytes end an archive; archives that were concatenated go on after them.

Damage costs the members that it touches: the walk goes on at the next intact header, at any offset. A damaged range
begins where a header should be, or at a member in whose data a header was found where none followed the data: bytes are
missing there.

Limit: a member may itself be a tar archive. A walk that starts inside such a member takes its members for those of the
outer archive, up to its end.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.tfrecords.byte_window import CHUNK_BYTES, ByteWindow
from pipeline.tfrecords.tfrecord import CorruptRange

LOOK_BACK_BYTES = 4 << 20

_BLOCK = tarfile.BLOCKSIZE
_MAGIC, _MAGIC_AT = b"ustar", 257
_LARGEST_PADDING = 1 << 20
"""Largest run of zero bytes that is no damage: tar pads archives to their blocking factor, at most 2048 blocks."""
_LARGEST_EXTENSION = 1 << 20
_LONG_NAME = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE_CONTINUES = {_BLOCK: 482, 0: 504}
"""Offset of the flag `isextended` in a GNU sparse header, and in the blocks that follow it."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
      offset: offset of its header, or of the extended headers before it.
      name: its path in the archive; bytes outside UTF-8 are lone surrogates.
      data_start: offset of its data.
      size: number of bytes of its data.
      problem: the reason why it has no data to read, such as `is a link to a.jpg`; empty if it has.
    """

    offset: int
    name: str
    data_start: int
    size: int
    problem: str = ""

    @property
    def stop(self) -> int:
        """End offset of the padded data (exclusive)."""
        return self.data_start + _padded(self.size)


def is_tar(start: bytes) -> bool:
    """Returns whether the first bytes of a file (512 suffice) are an intact header of a tar archive."""
    return len(start) >= _BLOCK and _parse(start[:_BLOCK]) is not None


class TarReader:
    """Walks over an archive, and reads the data of members on the way."""

    def __init__(self, window: ByteWindow, max_data_bytes: int) -> None:
        """Wraps a window over the archive.

        Args:
          window: over a seekable file or a stream; moves forward with the walk.
          max_data_bytes: largest size of a member whose data may be read.
        """
        self._window = window
        self._max_data_bytes = max_data_bytes

    def items(self, offset: int) -> Iterator[Member | CorruptRange]:
        """Yields the files of the archive and its damage from `offset` on, where a header should be.

        Raises:
          OSError: the file cannot be read.
        """
        while (entry := self._entry(offset)) is not None:
            item, offset = entry
            if item is not None:
                yield item
        if self._window.error:
            yield CorruptRange(offset, max(offset, self._window.stop), self._window.error)

    def data(self, member: Member) -> bytes:
        """Returns the data of the member that `items` yielded last.

        Raises:
          OSError: the data cannot be read.
        """
        window = self._window
        if not self._fill(member.data_start, member.size):
            raise OSError(f"the file ends in the member {member.name}; it has become shorter")
        start = member.data_start - window.base
        return window.data[start : start + member.size]

    def boundary_before(self, start: int, look_back_bytes: int = LOOK_BACK_BYTES) -> int:
        """Returns the offset of a member before `start`: at least `look_back_bytes` before it, if possible; or 0."""
        while look_back_bytes < start:
            found = self._find_header(start - look_back_bytes, start)
            # The header that was found may follow an extended one: only the next member is complete for sure.
            entry = self._entry(found) if found < start else None
            if entry is not None and isinstance(entry[0], Member) and entry[1] < start:
                following = self._entry(entry[1])
                if following is not None and isinstance(following[0], Member) and following[0].offset < start:
                    return following[0].offset
            look_back_bytes *= 4
        return 0

    def _entry(self, offset: int) -> tuple[Member | CorruptRange | None, int] | None:
        """Returns the member or damage at `offset`, None for a directory or the like, and its end; None at the end."""
        window, first = self._window, offset
        offset = self._after_zeros(offset)
        if offset - first > _LARGEST_PADDING:
            return CorruptRange(first, offset, f"{offset - first} zero bytes where members were expected"), offset
        first, extensions = offset, _Extensions()
        while True:
            if not self._fill(offset, _BLOCK):
                rest = window.data[offset - window.base :]
                if offset == first and not rest.strip(b"\0"):
                    return None
                return self._cut_off(first, f"the archive ends {len(rest)} bytes after the start of a header")
            block = window.data[offset - window.base : offset - window.base + _BLOCK]
            info = _parse(block)
            if info is None:
                stop = self._find_header(first + 1)
                text = "no tar header, or its checksum does not match"
                return CorruptRange(first, stop, self._with_error(text)), stop
            offset += _BLOCK
            if info.type not in (*_LONG_NAME, *_PAX, tarfile.XGLTYPE):
                break
            if info.size > _LARGEST_EXTENSION or not self._fill(offset, info.size):
                return self._cut_off(first, f"an extended header claims {info.size} bytes")
            extensions.add(info.type, window.data[offset - window.base : offset - window.base + info.size])
            offset += _padded(info.size)
        return self._member(first, offset, info, extensions, block)

    def _member(
        self, first: int, offset: int, info: tarfile.TarInfo, extensions: _Extensions, block: bytes
    ) -> tuple[Member | CorruptRange | None, int]:
        name, size = extensions.name or info.name, extensions.size(info.size)
        if info.islnk() or info.issym():
            target = extensions.link or info.linkname
            return Member(first, name, offset, 0, f"is a link to {target}; pack it with tar --dereference"), offset
        if info.isdir() or info.isfifo() or info.ischr() or info.isblk():
            return None, offset
        problem = "is a sparse file; pack it without --sparse" if extensions.is_sparse else ""
        if info.type == tarfile.GNUTYPE_SPARSE:
            problem = "is a sparse file; pack it without --sparse"
            flag = block[_SPARSE_CONTINUES[_BLOCK]]
            while flag and self._fill(offset, _BLOCK):
                flag = self._window.data[offset - self._window.base + _SPARSE_CONTINUES[0]]
                offset += _BLOCK
        end = self._end_of(offset, size)
        if end < offset + size:
            return self._cut_off(
                first, f"the member {name} claims {size} bytes, but the archive ends after {max(0, end - offset)}"
            )
        stop = offset + _padded(size)
        if not self._is_followed(offset, stop) and (inner := self._find_header(offset, stop)) < stop:
            return CorruptRange(
                first, inner, f"bytes are missing in the member {name}, in which a header begins"
            ), inner
        return Member(first, name, offset, size, problem), offset + _padded(size)

    def _is_followed(self, start: int, stop: int) -> bool:
        """Returns whether a header, zero bytes or the end follows the data [start, stop); always true in a stream."""
        window = self._window
        if window.size is None or window.size < stop + _BLOCK:
            return True
        if stop - start <= self._max_data_bytes and self._fill(start, stop + _BLOCK - start):
            block = window.data[stop - window.base : stop - window.base + _BLOCK]
        else:
            block = window.peek(stop, _BLOCK)
        return not block.strip(b"\0") or _parse(block) is not None

    def _end_of(self, start: int, size: int) -> int:
        """Returns the end of a member's data, or the end of the archive in it; a stream is read up to there."""
        window = self._window
        if window.size is not None:
            return min(start + size, window.size)
        if size <= self._max_data_bytes:
            self._fill(start, _padded(size))
        else:
            left = start + _padded(size) - window.stop
            while left > 0 and window.fill(window.stop, min(CHUNK_BYTES, left)):
                left = start + _padded(size) - window.stop
        return min(start + size, window.stop)

    def _cut_off(self, first: int, message: str) -> tuple[CorruptRange, int]:
        window = self._window
        while window.size is None and window.fill(window.stop, CHUNK_BYTES):
            pass
        end = window.stop if window.size is None else window.size
        return CorruptRange(first, end, self._with_error(message)), end

    def _with_error(self, message: str) -> str:
        """Returns a message with the decompression error, if there is one; it is then reported."""
        error, self._window.error = self._window.error, ""
        return f"{message}; {error}" if error else message

    def _fill(self, offset: int, count: int) -> bool:
        """Makes the window hold some bytes; see `ByteWindow.fill`. A stream that ends before `offset` is no error."""
        window = self._window
        return (window.size is not None or offset <= window.stop) and window.fill(offset, count)

    def _after_zeros(self, offset: int) -> int:
        """Returns the offset of the first block from `offset` on that does not hold only zeros, or of the end."""
        window = self._window
        while self._fill(offset, _BLOCK) and not window.data[offset - window.base]:
            data = window.data[offset - window.base :]
            zeros = (len(data) - len(data.lstrip(b"\0"))) // _BLOCK * _BLOCK
            offset += zeros
            if zeros < len(data) // _BLOCK * _BLOCK:
                break
        return offset

    def _find_header(self, offset: int, stop: int | None = None) -> int:
        """Returns the offset of the first intact header in [offset, stop); without one, `stop` or the end."""
        window = self._window
        while (stop is None or offset < stop) and self._fill(offset, _BLOCK):
            data, position = window.data, offset - window.base + _MAGIC_AT
            while (position := data.find(_MAGIC, position)) >= 0:
                start = position - _MAGIC_AT
                if start + _BLOCK > len(data):
                    break
                if _parse(data[start : start + _BLOCK]) is not None:
                    return window.base + start
                position += 1
            offset = window.stop - _BLOCK + 1
        return window.stop if stop is None else stop


class _Extensions:
    """The contents of the extended headers before a header."""

    def __init__(self) -> None:
        self.name = self.link = ""
        self.is_sparse = False
        self._size = ""

    def add(self, kind: bytes, data: bytes) -> None:
        if kind in _LONG_NAME:
            text = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            if kind == tarfile.GNUTYPE_LONGNAME:
                self.name = text
            else:
                self.link = text
        elif kind in _PAX:
            fields = _pax_fields(data)
            self.name = fields.get("GNU.sparse.name") or fields.get("path") or self.name
            self.link = fields.get("linkpath") or self.link
            self.is_sparse = any(name.startswith("GNU.sparse.") for name in fields)
            self._size = fields.get("size", "")

    def size(self, stated: int) -> int:
        return int(self._size) if self._size.isdecimal() and self._size.isascii() else stated


def _pax_fields(data: bytes) -> dict[str, str]:
    """Returns the fields of a pax extended header, whose records are `LENGTH NAME=VALUE` and a line feed."""
    fields = {}
    position = 0
    while (space := data.find(b" ", position)) > position and data[position:space].isdigit():
        stop = position + int(data[position:space])
        name, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or stop <= space:
            break
        fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        position = stop
    return fields


def _parse(block: bytes) -> tarfile.TarInfo | None:
    """Returns the header in a block, or None if it is none or its checksum does not match."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return info if info.size >= 0 else None


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
