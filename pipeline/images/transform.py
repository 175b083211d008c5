"""`ImageTransform`: how decoded pixels become a network's input, as data.

The computation is in `pipeline.images.apply`; this module loads no heavy package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipeline.core.errors import UsageError

ResizeMode = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Channels = Literal["rgb", "bgr"]
Margins = Literal["floor", "half_even"]
Triple = tuple[float, float, float]

_CHOICES: dict[str, tuple[str, ...]] = {
    "resize": get_args(ResizeMode),
    "interpolation": get_args(Interpolation),
    "channels": get_args(Channels),
    "margins": get_args(Margins),
}


@dataclass(frozen=True)
class ImageTransform:
    """The transform from decoded RGB pixels to the values of a network's input, of any size.

    A level p of a channel, 0 to 255, becomes `(low + (high - low) * p / 255 - mean) / std`.

    The default is that of TensorFlow Hub's image modules; `pipeline.images.transforms.presets` has others.

    Attributes:
      resize: `squash` changes the aspect ratio to that of the input. `crop` keeps it, fills the input, and cuts off the
        overhang. `pad` keeps it, fits into the input, and pads the rest.
      crop_fraction: side of the input, divided by the side that images are resized to; the centre is cut out.
        In (0, 1].
      interpolation: the kernel: `bilinear`, or `bicubic` of Keys with a = -0.5.
      antialias: whether the kernel grows with the reduction, so that each source pixel counts. The result is then
        rounded to whole levels, as Pillow does.
      channels: order of the channels.
      input_range: the values (low, high) of the levels 0 and 255, before mean and std.
      mean: subtracted, in units of `input_range`, in the order of `channels`.
      std: divides the difference; likewise. Not zero.
      margins: what is cut off above or left where an odd number of pixels is cut off: the smaller half (`floor`,
        as in Hugging Face's image processors), or the half that is even (`half_even`, as in torchvision).
      fill: the RGB levels that `pad` pads with, 0 to 255.
    """

    resize: ResizeMode = "squash"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    channels: Channels = "rgb"
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    margins: Margins = "floor"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
          UsageError: a value is out of range.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name}={getattr(self, name)!r}: expected {' or '.join(choices)}")
        if not 0 < self.crop_fraction <= 1:
            raise UsageError(f"crop_fraction={self.crop_fraction}: expected a number above 0, and at most 1")
        if not _finite(self.input_range, 2) or self.input_range[0] >= self.input_range[1]:
            raise UsageError(f"input_range={self.input_range}: expected a low and a higher number, such as -1,1")
        if not _finite(self.mean, 3):
            raise UsageError(f"mean={self.mean}: expected three numbers")
        if not _finite(self.std, 3) or min(self.std) <= 0:
            raise UsageError(f"std={self.std}: expected three numbers above 0")
        if not _finite(self.fill, 3) or min(self.fill) < 0 or max(self.fill) > 255:
            raise UsageError(f"fill={self.fill}: expected three levels from 0 to 255")

    @property
    def scale(self) -> Triple:
        """The factor of each channel: value = level * scale + offset."""
        low, high = self.input_range
        red, green, blue = ((high - low) / 255 / std for std in self.std)
        return red, green, blue

    @property
    def offset(self) -> Triple:
        """The value of level 0 of each channel."""
        red, green, blue = ((self.input_range[0] - mean) / std for mean, std in zip(self.mean, self.std, strict=True))
        return red, green, blue

    @property
    def keeps_levels(self) -> bool:
        """Whether the values, times 255 where the range is [0, 1], are the levels; a uint8 input needs that."""
        return self.input_range in ((0.0, 1.0), (0.0, 255.0)) and not any(self.mean) and set(self.std) == {1}

    def box(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of which the input is the centre."""
        return math.floor(height / self.crop_fraction), math.floor(width / self.crop_fraction)

    def place(self, source: tuple[int, int], height: int, width: int) -> Placement:
        """Returns where an image comes to lie in the input.

        The sizes are those of torchvision and Hugging Face (`crop`, square) and of timm (`crop`, other ratios; `pad`).

        Args:
          source: height and width of the image.
          height: of the input.
          width: of the input.
        """
        box = self.box(height, width)
        if self.resize == "squash":
            rows, columns = box
        elif self.resize == "crop" and box[0] == box[1]:
            shorter = min(source)
            rows, columns = (side * box[0] // shorter for side in source)
        else:
            ratios = [side / target for side, target in zip(source, box, strict=True)]
            ratio = min(ratios) if self.resize == "crop" else max(ratios)
            rows, columns = (max(1, round(side / ratio)) for side in source)
        return Placement(self._span(rows, height), self._span(columns, width))

    def _span(self, size: int, target: int) -> Span:
        if size < target:
            return Span(size, 0, size, (target - size) // 2)
        excess = size - target
        return Span(size, excess // 2 if self.margins == "floor" else round(excess / 2), target, 0)

    def describe(self) -> str:
        """Returns the transform in words."""
        parts = [self.resize if self.crop_fraction == 1 else f"{self.resize} {self.crop_fraction:g}"]
        parts.append(f"{self.interpolation}{' with antialiasing' if self.antialias else ''}")
        low, high = self.input_range
        values = f"{self.channels.upper()} in [{low:g}, {high:g}]"
        if any(self.mean):
            values += f" minus {_numbers(self.mean)}"
        if set(self.std) != {1}:
            values += f" divided by {_numbers(self.std)}"
        return ", ".join([*parts, values])


@dataclass(frozen=True)
class Span:
    """One axis of a resized image and its place in the input.

    Attributes:
      resized: length of the whole axis after the resize.
      first: the first pixel of it that is in the input.
      length: number of pixels of it that are in the input.
      position: of the first pixel, in the input.
    """

    resized: int
    first: int
    length: int
    position: int

    @property
    def part(self) -> slice:
        """The pixels of the resized axis that are in the input."""
        return slice(self.first, self.first + self.length)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.length == self.resized


@dataclass(frozen=True)
class Placement:
    """The place of a resized image in the input: its rows and its columns."""

    rows: Span
    columns: Span


def _finite(numbers: Any, count: int) -> bool:
    return len(numbers) == count and all(math.isfinite(number) for number in numbers)


def _numbers(values: Triple) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{value:g}" for value in values) + ")"
