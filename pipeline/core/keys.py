"""Keys as text and as bytes."""

from __future__ import annotations

import re

_ESCAPES = "\uf780-\uf7ff"
_FOR_ESCAPE = re.compile(f"[{_ESCAPES}\udc80-\udcff]")
_ESCAPE = re.compile(f"[{_ESCAPES}]")
_TO_SURROGATES = {code: code - 0xF780 + 0xDC80 for code in range(0xF780, 0xF800)}


def key_to_text(key: bytes) -> str:
    """Returns a key as text; bytes outside UTF-8 become lone surrogates, which `key_to_bytes` reverts."""
    return key.decode("utf-8", "surrogateescape")


def key_to_bytes(text: str) -> bytes:
    """Returns the key of a text, such as a file name: its bytes on disk."""
    return text.encode("utf-8", "surrogateescape")


def to_column(text: str) -> str:
    """Returns a text that tables can hold, which must be UTF-8: a path may have other bytes, as lone surrogates.

    Such a byte becomes the character U+F700 + byte of the private use area; `from_column` reverts it. So does each byte
    of these characters themselves, so that different texts stay different.
    """
    if text.isascii() or not _FOR_ESCAPE.search(text):
        return text

    def escape(found: re.Match[str]) -> str:
        return "".join(chr(0xF700 + byte) for byte in key_to_bytes(found[0]))

    return _FOR_ESCAPE.sub(escape, text)


def from_column(text: str) -> str:
    """Returns the text that `to_column` was given."""
    if text.isascii() or not _ESCAPE.search(text):
        return text
    return key_to_text(key_to_bytes(text.translate(_TO_SURROGATES)))
