"""The configuration of a model of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, TransformFile, number, triple, whole
from pipeline.images.transforms.presets import IMAGENET_MEAN, IMAGENET_STD

_CROP_MODES = {"center": "crop", "squash": "squash", "border": "pad"}
_INTERPOLATIONS = ("bilinear", "bicubic")


class TimmFile(TransformFile):
    """`config.json` as `timm.models.push_to_hf_hub` and `save_for_hf` write it; its `pretrained_cfg` counts.

    The source of defaults and sizes is timm's `resolve_data_config` and `transforms_imagenet_eval`.
    """

    title = "a config.json of timm"
    shares_name = True

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Returns whether there is a `pretrained_cfg`."""
        return isinstance(values.get("pretrained_cfg"), dict)

    def read(self, values: Mapping[str, Any]) -> FileTransform:
        """See `TransformFile`."""
        config = {key: value for key, value in values["pretrained_cfg"].items() if value is not None}
        interpolation = config.get("interpolation", "bicubic")
        if interpolation not in _INTERPOLATIONS:
            raise UsageError(f"interpolation={interpolation!r}: expected {' or '.join(_INTERPOLATIONS)}")
        crop_mode = config.get("crop_mode", "center")
        if crop_mode not in _CROP_MODES:
            raise UsageError(f"crop_mode={crop_mode!r}: expected {', '.join(_CROP_MODES)}")
        if config.get("crop_border_pixels"):
            raise UsageError(f"crop_border_pixels={config['crop_border_pixels']!r} is not supported")
        size = config.get("input_size")
        if size is not None and (not isinstance(size, list) or len(size) != 3 or size[0] != 3):
            raise UsageError(f"input_size={size!r}: expected 3 channels, a height and a width")
        mean = triple({"mean": config.get("mean", IMAGENET_MEAN)}, "mean")
        red, green, blue = (min(255, max(0, round(255 * value))) for value in mean)
        return FileTransform(
            ImageTransform(
                resize=_CROP_MODES[crop_mode],  # type: ignore[arg-type]
                crop_fraction=number({"crop_pct": config.get("crop_pct", 0.875)}, "crop_pct"),
                interpolation=interpolation,
                antialias=True,
                mean=mean,
                std=triple({"std": config.get("std", IMAGENET_STD)}, "std"),
                margins="half_even",
                fill=(red, green, blue) if crop_mode == "border" else (0, 0, 0),
            ),
            (whole({"height": size[1]}, "height"), whole({"width": size[2]}, "width")) if size else None,
        )
