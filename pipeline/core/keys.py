"""Keys as text and as bytes."""

from __future__ import annotations


def key_to_text(key: bytes) -> str:
    """Returns a key as text; bytes outside UTF-8 become lone surrogates, which `key_to_bytes` reverts."""
    return key.decode("utf-8", "surrogateescape")


def key_to_bytes(text: str) -> bytes:
    """Returns the key of a text, such as a file name: its bytes on disk."""
    return text.encode("utf-8", "surrogateescape")
