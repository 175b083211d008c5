"""The presets of `--preprocess`: one constant each, with its source.

A preset has no size; the size is that of the module's input. The constants of `registry.py` name them.
"""

from __future__ import annotations

from pipeline.images.transform import ImageTransform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

HUB = ImageTransform()
"""TensorFlow Hub's image modules: RGB in [0, 1].

Source: "Common Signatures for Images" of TensorFlow Hub. The resize is `tf.image.resize(method="bilinear",
antialias=False)` to the module's size, the default of that function.
"""

KERAS_TF = ImageTransform(input_range=(-1.0, 1.0))
"""Keras applications with `mode="tf"`: MobileNet, MobileNetV2, InceptionV3, Xception, NASNet, ResNetV2.

Source: `keras.applications.imagenet_utils.preprocess_input`, `x / 127.5 - 1`. The resize, as for all Keras presets, is
that of `keras.utils.image_dataset_from_directory`: bilinear without antialiasing.
"""

KERAS_TORCH = ImageTransform(mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Keras applications with `mode="torch"`: DenseNet.

Source: `keras.applications.imagenet_utils.preprocess_input`, `(x / 255 - mean) / std`.
"""

KERAS_CAFFE = ImageTransform(channels="bgr", input_range=(0.0, 255.0), mean=(103.939, 116.779, 123.68))
"""Keras applications with `mode="caffe"`: ResNet (version 1), VGG16 and VGG19.

Source: `keras.applications.imagenet_utils.preprocess_input`: BGR, minus the mean of ImageNet, without scaling.
"""

RAW255 = ImageTransform(input_range=(0.0, 255.0))
"""Levels from 0 to 255, for networks that scale them: MobileNetV3, EfficientNet, EfficientNetV2 and ConvNeXt of Keras.

Source: their `preprocess_input` in `keras.applications`, which returns its argument.
"""

IMAGENET = ImageTransform(
    resize="crop",
    crop_fraction=0.875,
    interpolation="bilinear",
    antialias=True,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    margins="half_even",
)
"""The classic evaluation of ImageNet classifiers: the shorter side to 256, the centre of 224, mean and std.

Source: `torchvision.transforms._presets.ImageClassification`, with its defaults.
"""

CLIP = ImageTransform(
    resize="crop",
    interpolation="bicubic",
    antialias=True,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""CLIP: the shorter side to the input's, the centre, mean and std of its training images.

Source: the values are those of `_transform` in openai/CLIP's `clip.py`; the margins are those of
`transformers.CLIPImageProcessor`.
"""

SIGLIP = ImageTransform(interpolation="bicubic", antialias=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""SigLIP: squashed to the input's size, in [-1, 1].

Source: `transformers.SiglipImageProcessor`.
"""
