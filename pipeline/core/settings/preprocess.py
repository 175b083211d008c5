"""The flags about the transform from pixels to the network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.registry import load_registry
from pipeline.core.settings.flags import check_choices, flag

ResizeMode = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Channels = Literal["rgb", "bgr"]

# By path: this folder imports no other one.
_PRESETS = load_registry("pipeline.images.transforms.registry:PRESETS").names


def parse_triple(text: str) -> tuple[float, float, float]:
    """Parses a number for each of three channels; one number stands for all.

    Raises:
      UsageError: `text` is neither one finite number nor three.
    """
    numbers = _parse_numbers(text)
    if len(numbers) not in (1, 3):
        raise UsageError(f"{text!r} is not a number for each channel; write it like 0.5 or 0.485,0.456,0.406")
    red, green, blue = numbers if len(numbers) == 3 else numbers * 3
    return red, green, blue


def parse_range(text: str) -> tuple[float, float]:
    """Parses a low and a high value.

    Raises:
      UsageError: `text` is not two finite numbers, the lower one first.
    """
    numbers = _parse_numbers(text)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise UsageError(f"{text!r} is not a low and a high value; write it like -1,1")
    return numbers[0], numbers[1]


def _parse_numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(item) for item in text.split(","))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


@dataclass(frozen=True)
class PreprocessConfig:
    """The transform from pixels to the network's input."""

    preprocess: str | None = flag(
        f"a preset ({', '.join(_PRESETS)}) or a file: preprocessor_config.json of Hugging Face, config.json of timm, "
        "or YAML. Default: such a file in the module's directory, else as the module declares, else as its network "
        "shows",
        default=None,
        metavar="PRESET_OR_FILE",
    )
    input_range: tuple[float, float] | None = flag(
        "values of black and white, such as -1,1; without --mean and --std, they are the final ones. Default: by "
        "--preprocess",
        default=None,
        parse=parse_range,
        metavar="LOW,HIGH",
    )
    mean: tuple[float, float, float] | None = flag(
        "subtracted from each channel, in units of the input range. Default: by --preprocess",
        default=None,
        parse=parse_triple,
        metavar="A,B,C",
    )
    std: tuple[float, float, float] | None = flag(
        "divides each channel after that. Default: by --preprocess", default=None, parse=parse_triple, metavar="A,B,C"
    )
    resize: ResizeMode | None = flag(
        "squash: change the aspect ratio; crop: keep it and cut off what overhangs; pad: keep it and pad. Default: by "
        "--preprocess",
        default=None,
        choices=get_args(ResizeMode),
    )
    crop_fraction: float | None = flag(
        "share of each side of the resized image that its centre, the input, has. Default: by --preprocess",
        default=None,
        parse=float,
        metavar="SHARE",
    )
    interpolation: Interpolation | None = flag(
        "kernel of the resize. Default: by --preprocess", default=None, choices=get_args(Interpolation)
    )
    antialias: bool | None = flag(
        "whether the resize counts all source pixels, as Pillow does. Default: by --preprocess", default=None
    )
    channels: Channels | None = flag(
        "order of the channels. Default: by --preprocess", default=None, choices=get_args(Channels)
    )

    def __post_init__(self) -> None:
        """Refuses values out of range."""
        check_choices(self)
        if self.preprocess == "":
            raise UsageError(f"--preprocess is empty; expected a file or one of {', '.join(_PRESETS)}")
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise UsageError(f"--crop_fraction={self.crop_fraction} is not a share; it must be above 0 and at most 1")
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std={','.join(f'{value:g}' for value in self.std)} must be above 0")
