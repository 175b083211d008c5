"""Writes `transform_references.npz`: what other libraries make of the images of `photos`.

```
python -m venv reference
reference/bin/pip install torch==2.15.0 torchvision==0.29.2 transformers==5.24.0 timm==1.0.31 numpy pillow
PYTHONPATH=. reference/bin/python tests/images/make_transform_references.py
```

For each case of `CASES`, the file has the levels of 64 pixels of each image (uint8: all these libraries resize whole
levels), and the values of these pixels of the first image (float32).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import photos

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
TIMM = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

# Each case: a preset, or the contents of a file; and the size if neither says it.
CASES: dict[str, tuple[str | dict[str, Any], tuple[int, int]]] = {
    "imagenet": ("imagenet", (224, 224)),
    "clip": ("clip", (224, 224)),
    "clip_pil": ("clip", (224, 224)),
    "siglip": ("siglip", (224, 224)),
    "dinov2": (
        {
            "image_processor_type": "BitImageProcessor",
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "crop_size": {"height": 224, "width": 224},
            "size": {"shortest_edge": 256},
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            **IMAGENET,
        },
        (224, 224),
    ),
    "vit": (
        {
            "feature_extractor_type": "ViTFeatureExtractor",
            "do_normalize": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "size": 224,
        },
        (224, 224),
    ),
    "deit": (
        {
            "image_processor_type": "DeiTImageProcessor",
            "crop_size": {"height": 224, "width": 224},
            "size": {"height": 256, "width": 256},
            "resample": 3,
            **IMAGENET,
        },
        (224, 224),
    ),
    "convnext": (
        {
            "image_processor_type": "ConvNextImageProcessor",
            "crop_pct": 0.875,
            "size": {"shortest_edge": 224},
            "resample": 3,
            **IMAGENET,
        },
        (224, 224),
    ),
    "convnext_384": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2, **IMAGENET},
        (384, 384),
    ),
    "timm": (
        {"pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", **TIMM}},
        (224, 224),
    ),
    "timm_squash": (
        {
            "pretrained_cfg": {
                "input_size": [3, 256, 256],
                "crop_pct": 0.95,
                "crop_mode": "squash",
                "interpolation": "bicubic",
                **TIMM,
            }
        },
        (256, 256),
    ),
    "timm_border": (
        {
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "crop_pct": 1.0,
                "crop_mode": "border",
                "interpolation": "bilinear",
                **TIMM,
            }
        },
        (224, 224),
    ),
    "timm_wide": (
        {"pretrained_cfg": {"input_size": [3, 160, 256], "crop_pct": 0.875, "interpolation": "bilinear", **TIMM}},
        (160, 256),
    ),
}


def reference(name: str) -> Any:
    """Returns the function of a case: a Pillow image to values [H, W, 3], mean and std."""
    import timm.data
    import torchvision.transforms._presets as torchvision_presets
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    content, size = CASES[name]
    if name == "imagenet":
        transform = torchvision_presets.ImageClassification(crop_size=size[0])
        return lambda image: transform(image).numpy().transpose(1, 2, 0), transform.mean, transform.std
    if name.startswith("timm"):
        config = timm.data.resolve_data_config(pretrained_cfg=content["pretrained_cfg"])
        made = timm.data.create_transform(**config)
        return lambda image: made(image).numpy().transpose(1, 2, 0), config["mean"], config["std"]
    if isinstance(content, dict):
        kind = content.get("image_processor_type", "ViTImageProcessor")
        values = {key: value for key, value in content.items() if not key.endswith("_type")}
        processor = getattr(transformers, kind)(**values)
    else:
        kinds = {
            "clip": transformers.CLIPImageProcessor,
            "clip_pil": CLIPImageProcessorPil,
            "siglip": transformers.SiglipImageProcessor,
        }
        processor = kinds[name]()
    return (
        lambda image: np.asarray(processor(image, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0),
        processor.image_mean,
        processor.image_std,
    )


def main() -> None:
    arrays: dict[str, np.ndarray] = {"digest": np.array(photos.digest())}
    for name, (_, size) in CASES.items():
        function, mean, std = reference(name)
        rows, columns = photos.sampled(size)
        levels = []
        for index, image in enumerate(photos.photos()):
            if name == "timm_border" and max(image.shape) > 400 * min(image.shape[:2]):
                levels.append(np.zeros((len(rows), 3), np.uint8))  # timm asks for a height of 0
                continue
            values = function(Image.fromarray(image))
            assert values.shape == (*size, 3), (name, values.shape)
            picked = values[rows, columns]
            exact = (picked.astype(np.float64) * std + mean) * 255
            assert np.abs(exact - np.rint(exact)).max() < 1e-2, name
            levels.append(np.rint(exact).clip(0, 255).astype(np.uint8))
            if index == 0:
                arrays[f"{name}/values"] = picked.astype(np.float32)
        arrays[f"{name}/levels"] = np.stack(levels)
        print(name, json.dumps([float(np.mean(mean)), float(np.mean(std))]))  # noqa: T201
    np.savez_compressed(Path(__file__).parent / "transform_references.npz", **arrays)


if __name__ == "__main__":
    main()
