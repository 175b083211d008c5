"""Texts from strangers in a form that can be shown: pages escape them, terminals need more."""

from __future__ import annotations


def show_text(text: str) -> str:
    r"""Returns a text without characters that a file in UTF-8, or a terminal, cannot show: `\n` for a line feed."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def show_key(key: bytes) -> str:
    r"""Returns a key as such a text; bytes outside UTF-8 as `\xff`."""
    return show_text(key.decode("utf-8", "backslashreplace"))
