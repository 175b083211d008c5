"""The configuration of an image processor of Hugging Face transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, TransformFile, number, triple, whole

_RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters."""
_CONVNEXT_SQUASH_SIZE = 384
_IGNORED = {
    # They name classes, or say how arrays are passed; none changes pixels of an RGB image.
    *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_valid_processor_keys"),
    *("data_format", "input_data_format", "device", "return_tensors", "disable_grouping", "do_convert_rgb"),
    "default_to_square",
}
_READ = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std"),
}


@dataclass(frozen=True)
class _Processor:
    """The defaults of an image processor.

    Attributes:
      crops: whether it crops where the file does not say.
      number_is_square: whether a size that is one number is both sides; otherwise it is the shorter side.
      has_crop_pct: whether it has the rule of ConvNeXt.
    """

    crops: bool = False
    number_is_square: bool = True
    has_crop_pct: bool = False


_PROCESSORS = {
    "CLIP": _Processor(crops=True, number_is_square=False),
    "Bit": _Processor(crops=True, number_is_square=False),
    "Siglip": _Processor(),
    "ViT": _Processor(),
    "DeiT": _Processor(crops=True),
    "ConvNext": _Processor(number_is_square=False, has_crop_pct=True),
}
"""By the name of the class, without its ending; DINOv2 has the processor of BiT."""
_ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")


class HuggingFaceFile(TransformFile):
    """`preprocessor_config.json` of `transformers`.

    The source of defaults and sizes is the classes of `transformers`: `CLIPImageProcessor`, `SiglipImageProcessor`,
    `BitImageProcessor`, `ViTImageProcessor`, `DeiTImageProcessor` and `ConvNextImageProcessor`. Other processors, and
    keys that would change pixels in another way, are refused.
    """

    title = "a preprocessor_config.json of Hugging Face"

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Returns whether there is the name of a processor, or its values."""
        return not _READ.isdisjoint(values) or "image_processor_type" in values or "feature_extractor_type" in values

    def read(self, values: Mapping[str, Any]) -> FileTransform:
        """See `TransformFile`."""
        processor = _processor(values)
        for key, value in values.items():
            if key not in _IGNORED | _READ and value not in (None, False):
                raise UsageError(f"{key}={value!r} is not supported")
        if values.get("do_resize", True) is not True:
            raise UsageError(f"do_resize={values['do_resize']!r} is not supported")
        resample = values.get("resample")
        if resample not in _RESAMPLE:
            raise UsageError(f"resample={resample!r}: expected 2 (bilinear) or 3 (bicubic)")
        geometry = _convnext(values) if processor.has_crop_pct else _geometry(values, processor)
        factor = number(values, "rescale_factor") if "rescale_factor" in values else 1 / 255
        high = 255 * factor if values.get("do_rescale", True) else 255.0
        normalizes = values.get("do_normalize", True)
        return FileTransform(
            ImageTransform(
                resize="crop" if geometry.keeps_ratio else "squash",
                crop_fraction=geometry.crop_fraction,
                interpolation=_RESAMPLE[resample],  # type: ignore[arg-type]
                antialias=True,
                input_range=(0.0, high),
                mean=triple(values, "image_mean") if normalizes else (0.0, 0.0, 0.0),
                std=triple(values, "image_std") if normalizes else (1.0, 1.0, 1.0),
            ),
            geometry.size,
        )


@dataclass(frozen=True)
class _Geometry:
    """The sizes of a processor.

    Attributes:
      size: height and width of the result.
      keeps_ratio: whether the resize keeps the aspect ratio.
      crop_fraction: as in `ImageTransform`.
    """

    size: tuple[int, int]
    keeps_ratio: bool
    crop_fraction: float = 1.0


def _processor(values: Mapping[str, Any]) -> _Processor:
    name = values.get("image_processor_type") or values.get("feature_extractor_type")
    stem = next((str(name).removesuffix(end) for end in _ENDINGS if str(name).endswith(end)), str(name))
    if stem not in _PROCESSORS:
        known = ", ".join(f"{known}ImageProcessor" for known in _PROCESSORS)
        raise UsageError(f"image_processor_type={name!r} is unknown; expected one of {known}")
    return _PROCESSORS[stem]


def _geometry(values: Mapping[str, Any], processor: _Processor) -> _Geometry:
    """Returns the sizes of a processor that resizes, and may crop the centre."""
    size = values.get("size")
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        resized, keeps_ratio = (whole(size, "height"), whole(size, "width")), False
    elif isinstance(size, dict) and set(size) == {"shortest_edge"}:
        resized, keeps_ratio = (whole(size, "shortest_edge"),) * 2, True
    elif isinstance(size, int):
        resized, keeps_ratio = (whole(values, "size"),) * 2, not processor.number_is_square
    else:
        raise UsageError(f"size={size!r}: expected height and width, or shortest_edge")
    if not values.get("do_center_crop", processor.crops):
        if keeps_ratio:
            raise UsageError(f"size={size!r} without do_center_crop leaves images of different sizes")
        return _Geometry(resized, keeps_ratio=False)
    crop = values.get("crop_size")
    cut = (whole(crop, "height"), whole(crop, "width")) if isinstance(crop, dict) else (whole(values, "crop_size"),) * 2
    if cut[0] * resized[1] != cut[1] * resized[0] or cut[0] > resized[0]:
        raise UsageError(f"crop_size={crop!r} with size={size!r}: expected a crop of the same shape that is not larger")
    return _Geometry(cut, keeps_ratio, _fraction(cut[0], resized[0]))


def _convnext(values: Mapping[str, Any]) -> _Geometry:
    """Returns the sizes of ConvNeXt's processor, which crops below 384 pixels and squashes from there on."""
    size = values.get("size")
    edge = whole(size, "shortest_edge") if isinstance(size, dict) else whole(values, "size")
    if edge >= _CONVNEXT_SQUASH_SIZE:
        return _Geometry((edge, edge), keeps_ratio=False)
    crop_pct = number(values, "crop_pct") if values.get("crop_pct") is not None else 224 / 256
    if not 0 < crop_pct <= 1:
        raise UsageError(f"crop_pct={crop_pct}: expected a number above 0, and at most 1")
    return _Geometry((edge, edge), keeps_ratio=True, crop_fraction=_fraction(edge, int(edge / crop_pct)))


def _fraction(cut: int, resized: int) -> float:
    """Returns the crop fraction for which `ImageTransform.box` of `cut` is `resized`, whatever the rounding."""
    fraction = cut / resized
    while math.floor(cut / fraction) < resized:
        fraction = math.nextafter(fraction, 0)
    return fraction
