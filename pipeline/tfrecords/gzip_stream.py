"""Reading an intact or damaged gzip or zlib file up to the last byte that can be decompressed."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any, Protocol

_CHUNK_BYTES = 256 << 10
_ANY_WBITS = 47  # zlib finds out whether gzip or zlib has compressed the bytes


class ByteStream(Protocol):
    """A stream that is read from start to end."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; empty at the end."""


class GzipStream:
    """Decompresses a file of any number of gzip members (RFC 1952) or zlib streams (RFC 1950).

    At damage, `gzip.GzipFile` drops the bytes that the failing call has decompressed; this class returns them.
    """

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._input = b""
        self._member: Any = zlib.decompressobj(_ANY_WBITS)  # None between two members
        self._error: Exception | None = None

    def read(self, size: int, /) -> bytes:
        """Returns at least one byte and at most `size`; empty at the end of the file.

        Both errors are raised only after all bytes before the damage were returned.

        Raises:
          EOFError: the file ends inside a gzip member.
          zlib.error: the compressed bytes are damaged.
        """
        while self._error is None:
            if not self._input:
                self._input = self._file.read(_CHUNK_BYTES)
                if not self._input and self._member is None:
                    return b""
            if self._member is None:
                self._input = self._input.lstrip(b"\0")  # padding between and after members
                if not self._input:
                    continue
                self._member = zlib.decompressobj(_ANY_WBITS)
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
    """Returns the bytes that can be decompressed before the error in `compressed`."""
    pieces = []
    with contextlib.suppress(zlib.error):
        for position in range(len(compressed)):
            pieces.append(member.decompress(compressed[position : position + 1]))
    return b"".join(pieces)
