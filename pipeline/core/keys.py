"""Keys as text and as bytes."""

from __future__ import annotations


def key_to_text(key: bytes) -> str:
    """Returns a key as text; bytes that are not UTF-8 become lone surrogates, which `key_to_bytes` turns back."""
    return key.decode("utf-8", "surrogateescape")


def key_to_bytes(text: str) -> bytes:
    """Returns the key that a text, such as a file's name, stands for: the bytes that it has on disk."""
    return text.encode("utf-8", "surrogateescape")
