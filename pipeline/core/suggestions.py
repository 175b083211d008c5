"""Texts about names that are unknown, with the known name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], *, similarity: float = 0.6) -> str | None:
    """Returns the known name that is most like a name, whatever their case; None if none is like it.

    Args:
      name: may be misspelt.
      known: the names to choose from.
      similarity: the least ratio of `difflib.SequenceMatcher` that counts, from 0 to 1.
    """
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=similarity)
    return by_lower[found[0]] if found else None


def describe_unknown(value: object, known: Iterable[str], other: str = "") -> str:
    """Returns a text such as `'nome' is unknown; expected one of none, l2; did you mean none?`.

    Args:
      value: an unknown value.
      known: the known ones.
      other: names what else would be accepted.
    """
    names = list(known)
    text = f"{value!r} is unknown; expected one of {', '.join(names)}" + (f", or {other}" if other else "")
    meant = closest(str(value), names)
    return f"{text}; did you mean {meant}?" if meant else text
