"""The flags about the decoding of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.settings.flags import check_choices, flag, parse_bytes

DecodeMode = Literal["exact", "fast"]
OnDamaged = Literal["embed", "fail"]
Icc = Literal["ignore", "srgb"]


@dataclass(frozen=True)
class DecodeConfig:
    """The decoding of images to pixels."""

    decode: DecodeMode = flag(
        "exact: the same pixels as TensorFlow's decoder and resize; fast: JPEG decoded at reduced scale, which changes "
        "the vectors. Default: exact",
        default="exact",
        choices=get_args(DecodeMode),
    )
    exif_orientation: bool = flag("rotate images by their EXIF orientation. Default: ignore it", default=False)
    max_pixels: int = flag(
        "an image whose header declares more pixels is a failure. Default: 100000000",
        default=100_000_000,
        parse=int,
        metavar="N",
    )
    max_image_bytes: int = flag(
        "an encoded image of more bytes is a failure. Default: 64MiB",
        default=64 << 20,
        parse=parse_bytes,
        metavar="SIZE",
    )
    on_damaged: OnDamaged = flag(
        "embed: damaged images that have pixels all the same, such as a JPEG without its lower half, are embedded as "
        "TensorFlow does, counted, and listed in OUT/damaged; fail: each is a failure, truncated. Default: embed",
        default="embed",
        choices=get_args(OnDamaged),
    )
    icc: Icc = flag(
        "ignore: an image's colour profile is ignored, as by TensorFlow; srgb: its colours are converted to sRGB, "
        "which changes the vectors. Default: ignore",
        default="ignore",
        choices=get_args(Icc),
    )

    def __post_init__(self) -> None:
        """Refuses limits below 1, which no image can meet."""
        check_choices(self)
        for name in ("max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}={getattr(self, name)} leaves no image; it must be at least 1")
