"""The columns by which the points of a map can be coloured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_CATEGORIES = 9
_LARGEST_CODES = 12
"""A column with at most so many different integers holds classes, not amounts."""
OTHER = "other values"
MISSING = "no value"


@dataclass(frozen=True)
class Classes:
    """A column of classes.

    Attributes:
      name: of the column.
      labels: of the classes, the most frequent first; then `OTHER` and `MISSING`, if there are any.
      codes: index in `labels`, of each row.
    """

    name: str
    labels: tuple[str, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Amounts:
    """A column of numbers.

    Attributes:
      name: of the column.
      values: of the rows; None where there is none.
    """

    name: str
    values: tuple[float | None, ...]

    @classmethod
    def of(cls, name: str, values: NDArray[np.float32]) -> Amounts:
        """Returns a column of finite numbers, with five digits each."""
        return cls(name, tuple(float(f"{value:.5g}") for value in values))


def colourings(columns: pa.Table) -> tuple[Classes | Amounts, ...]:
    """Returns those columns of a table that can colour a map.

    These have at most one number or text in each row. Texts of which most are different are left out.
    """
    found = (_colouring(name, columns.column(name).to_pylist()) for name in columns.column_names)
    return tuple(item for item in found if item is not None)


def _colouring(name: str, column: list[object]) -> Classes | Amounts | None:
    values = [_single(value) for value in column]
    if any(isinstance(value, list | dict) for value in values):
        return None
    known = [value for value in values if value is not None]
    if not known:
        return None
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    different = len(set(known))
    if is_number and not (all(isinstance(value, int) for value in known) and different <= _LARGEST_CODES):
        return Amounts(name, tuple(_finite(value) for value in values))
    if not all(isinstance(value, str | bytes | bool | int) for value in known):
        return None
    if different > max(_CATEGORIES, len(known) // 2):
        return None
    return _classes(name, [None if value is None else _text(value) for value in values])


def _classes(name: str, texts: list[str | None]) -> Classes:
    counts = Counter(text for text in texts if text is not None)
    frequent = [text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    labels = frequent[:_CATEGORIES]
    codes = {text: index for index, text in enumerate(labels)}
    other = len(labels)
    missing = other + (len(frequent) > len(labels))
    labels += [OTHER] * (missing - other) + [MISSING] * (None in texts)
    return Classes(name, tuple(labels), tuple(missing if text is None else codes.get(text, other) for text in texts))


def _single(value: object) -> object:
    """Returns the only value of a list; None for an empty one."""
    if isinstance(value, list) and len(value) <= 1:
        return next(iter(value), None)
    return value


def _finite(value: object) -> float | None:
    return float(f"{value:.5g}") if isinstance(value, int | float) and np.isfinite(value) else None


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
