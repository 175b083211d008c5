"""The presets and the file kinds of `--preprocess`, one line each."""

from __future__ import annotations

from pipeline.core.registry import Registry

_PRESETS = "pipeline.images.transforms.presets"

PRESETS = Registry(
    "preprocess",
    {
        "hub": f"{_PRESETS}:HUB",
        "keras_tf": f"{_PRESETS}:KERAS_TF",
        "keras_torch": f"{_PRESETS}:KERAS_TORCH",
        "keras_caffe": f"{_PRESETS}:KERAS_CAFFE",
        "raw255": f"{_PRESETS}:RAW255",
        "imagenet": f"{_PRESETS}:IMAGENET",
        "clip": f"{_PRESETS}:CLIP",
        "siglip": f"{_PRESETS}:SIGLIP",
    },
)
"""Transforms by name."""

FILES = Registry(
    "preprocess",
    {
        "preprocess.yaml": "pipeline.images.transforms.own_file:OwnFile",
        "preprocessor_config.json": "pipeline.images.transforms.huggingface:HuggingFaceFile",
        "config.json": "pipeline.images.transforms.timm:TimmFile",
    },
)
"""Kinds of files by the name that the file has beside a module; the first that a directory holds counts."""
