"""This package's own file of a transform, in YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, TransformFile, number, triple, whole
from pipeline.images.transforms.registry import PRESETS

_FIELDS = tuple(item.name for item in dataclasses.fields(ImageTransform))
_KEYS = ("preset", "image_size", *_FIELDS)


class OwnFile(TransformFile):
    """`preprocess.yaml`: a `preset` (default: hub), the fields of `ImageTransform` that differ, and an `image_size`.

    ```yaml
    preset: imagenet
    image_size: [384, 384]
    crop_fraction: 1.0
    interpolation: bicubic
    ```

    As on the command line, an `input_range` takes the place of the preset's mean and std.
    """

    title = "a YAML file of this package"

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Returns whether any key is known."""
        return not values.keys().isdisjoint(_KEYS)

    def read(self, values: Mapping[str, Any]) -> FileTransform:
        """See `TransformFile`."""
        for key in values:
            if key not in _KEYS:
                raise UsageError(f"'{key}' is unknown; expected some of {', '.join(_KEYS)}")
        base: ImageTransform = PRESETS.load(str(values.get("preset", "hub")))
        if "input_range" in values:
            base = dataclasses.replace(base, mean=ImageTransform.mean, std=ImageTransform.std)
        changes = {key: _convert(values, key) for key in _FIELDS if key in values}
        size = values.get("image_size")
        if size is not None and (not isinstance(size, list) or len(size) != 2):
            raise UsageError(f"image_size={size!r}: expected a list of height and width")
        return FileTransform(
            dataclasses.replace(base, **changes),
            (whole({"height": size[0]}, "height"), whole({"width": size[1]}, "width")) if size else None,
        )


def _convert(values: Mapping[str, Any], key: str) -> Any:
    value = values[key]
    if key in ("mean", "std"):
        return triple(values, key)
    if key == "fill":
        return tuple(round(level) for level in triple(values, key))
    if key == "crop_fraction":
        return number(values, key)
    if key == "input_range":
        if not isinstance(value, list) or len(value) != 2:
            raise UsageError(f"input_range={value!r}: expected a list of two numbers")
        return number({key: value[0]}, key), number({key: value[1]}, key)
    if key == "antialias":
        if not isinstance(value, bool):
            raise UsageError(f"antialias={value!r}: expected true or false")
        return value
    return value
