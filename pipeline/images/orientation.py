"""EXIF orientation: turning pixels upright and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

# EXIF orientation to (swap rows and columns, then flip rows, then flip columns) that make an image upright,
# EXIF 2.32 section 4.6.4, tag 274.
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
ORIENTATIONS = frozenset(_UPRIGHT)


@dataclass(frozen=True, slots=True)
class Turning:
    """A combination of quarter turns and mirrorings.

    Attributes:
      swap: first, swap rows and columns.
      flip_rows: then, reverse the order of the rows.
      flip_columns: then, reverse the order of the columns.
    """

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def then_quarter(self) -> Turning:
        """Returns the turning followed by a quarter turn, anticlockwise."""
        return Turning(not self.swap, not self.flip_columns, self.flip_rows)

    def then_mirror(self, *, rows: bool) -> Turning:
        """Returns the turning followed by a reversal of the rows (upside down), or else of the columns."""
        if rows:
            return dataclasses.replace(self, flip_rows=not self.flip_rows)
        return dataclasses.replace(self, flip_columns=not self.flip_columns)


def orientation_of_turning(turning: Turning) -> int:
    """Returns the EXIF orientation, 1 to 8, that a turning makes upright."""
    steps = (turning.swap, turning.flip_rows, turning.flip_columns)
    return next(orientation for orientation, found in _UPRIGHT.items() if found == steps)


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Returns a view of `pixels` [H, W, 3] turned upright from an EXIF orientation, 1 to 8."""
    swap, flip_rows, flip_columns = _UPRIGHT[orientation]
    if swap:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def turn_back(pixels: Pixels, orientation: int) -> Pixels:
    """Returns a view of upright `pixels` [H, W, 3] as they were before `turn`."""
    return turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))  # The other turns undo themselves.


def swaps_sides(orientation: int) -> bool:
    """Returns whether turning an image upright exchanges its height and width."""
    return _UPRIGHT[orientation][0]
