"""Reading a gzip file, damaged or not, to the last byte that can be had."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any, Protocol

_CHUNK_BYTES = 256 << 10
_GZIP_WBITS = 31


class ByteStream(Protocol):
    """What can be read from front to back."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes, none at the end."""


class GzipStream:
    """Decompresses a gzip file of any number of members (RFC 1952).

    `gzip.GzipFile` drops what it decompressed in the call that meets the damage; this does not.
    """

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._input = b""
        self._member: Any = zlib.decompressobj(_GZIP_WBITS)  # None between two members
        self._error: Exception | None = None

    def read(self, size: int, /) -> bytes:
        """Returns at least one byte and at most `size`, none at the end of the file.

        Raises:
          EOFError: the file ends inside a gzip member.
          zlib.error: the compressed bytes are damaged. Both only when all that comes before has been read.
        """
        while self._error is None:
            if not self._input:
                self._input = self._file.read(_CHUNK_BYTES)
                if not self._input and self._member is None:
                    return b""
            if self._member is None:
                self._input = self._input.lstrip(b"\0")  # padding between and behind members
                if not self._input:
                    continue
                self._member = zlib.decompressobj(_GZIP_WBITS)
            output = self._decompress(size)
            if output:
                return output
        raise self._error

    def _decompress(self, size: int) -> bytes:
        if not self._input:
            self._error = EOFError("the gzip stream ends early")
            return bytes(self._member.flush())
        before = self._member.copy()
        try:
            output = self._member.decompress(self._input, size)
        except zlib.error as error:
            self._error = error
            return _decompress_bytewise(before, self._input)
        self._input = self._member.unconsumed_tail or self._member.unused_data
        if self._member.eof:
            self._member = None
        return bytes(output)


def _decompress_bytewise(member: Any, compressed: bytes) -> bytes:
    """Returns what can be decompressed before the error that is in `compressed`."""
    pieces = []
    with contextlib.suppress(zlib.error):
        for position in range(len(compressed)):
            pieces.append(member.decompress(compressed[position : position + 1]))
    return b"".join(pieces)
