"""The transform that a module wants for its images: as it is named, described beside the module, or declared by it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from pipeline.core.errors import ModuleError, UsageError
from pipeline.core.settings import PreprocessConfig
from pipeline.core.suggestions import describe_unknown
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, find_transform, read_transform
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.signatures import ImageSignature

_HUB_INPUT, _HUB_OUTPUT = "images", "default"


@dataclass(frozen=True)
class NamedTransform:
    """A transform, and who says that it is the right one.

    Attributes:
      transform: the transform.
      source: who says so, such as `preset clip` or `attachment image_module_info`.
      image_size: height and width in pixels, if the source has one.
    """

    transform: ImageTransform
    source: str
    image_size: tuple[int, int] | None = None


def named_transform(module: Module, config: PreprocessConfig) -> NamedTransform | None:
    """Returns the transform that the user names, or that a file in the module's directory describes.

    The flags for single values are not applied yet. None if neither names a transform, and these flags do not
    settle the values either.

    Raises:
      UsageError: the named preset or file cannot be honoured, or the file in the module's directory.
    """
    if config.preprocess is not None:
        return _by_flag(config.preprocess)
    found = find_transform(module.path)
    if found is not None:
        name, in_file = found
        return NamedTransform(in_file.transform, f"{name} in the module's directory", in_file.image_size)
    if config.input_range is not None or (config.mean is not None and config.std is not None):
        return NamedTransform(ImageTransform(), "flags")
    return None


def _by_flag(text: str) -> NamedTransform:
    if text in PRESETS.names:
        return NamedTransform(PRESETS.load(text), f"preset {text}")
    if not os.path.exists(os.path.expanduser(text)):
        raise UsageError(f"--preprocess={describe_unknown(text, PRESETS.names, 'the path of a file')}")
    in_file: FileTransform = read_transform(text)
    return NamedTransform(in_file.transform, f"file {text}", in_file.image_size)


def declared_transform(module: Module, signature: ImageSignature) -> NamedTransform | None:
    """Returns the transform that a module declares by a convention; None if it declares none.

    Raises:
      UsageError: see `ImageTransform`.
    """
    images = module.signatures[signature.signature].inputs[signature.input_key]
    hub: ImageTransform = PRESETS.load("hub")
    if images.dtype == "uint8":
        return NamedTransform(PRESETS.load("raw255"), "uint8 input")
    if module.image_size is not None:
        return NamedTransform(hub, "attachment image_module_info")
    if module.format == "tf1_hub":
        return NamedTransform(hub, "TF1 Hub format")
    if (signature.input_key, signature.output_key) == (_HUB_INPUT, _HUB_OUTPUT):
        return NamedTransform(hub, "names of TF Hub's image signatures")
    return None


def undeclared(handle: str) -> ModuleError:
    """Returns the error for a model that does not say how its images are scaled, and whose network is not looked at."""
    return ModuleError(
        f"module {handle} does not say how its images are scaled; say --preprocess={'|'.join(PRESETS.names)}, or a "
        "file such as preprocessor_config.json, as the network was trained"
    )


def override(transform: ImageTransform, config: PreprocessConfig) -> ImageTransform:
    """Returns a transform with the flags for single values applied.

    An input range alone replaces mean and std, which are in units of the range.
    """
    changes = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)
        if item.name != "preprocess" and getattr(config, item.name) is not None
    }
    if "input_range" in changes:
        transform = dataclasses.replace(transform, mean=ImageTransform.mean, std=ImageTransform.std)
    return dataclasses.replace(transform, **changes)


def refuse_transform(config: PreprocessConfig) -> None:
    """Checks that no transform is asked for, for a module that takes encoded images.

    Raises:
      UsageError: one is.
    """
    asked = [item.name for item in dataclasses.fields(config) if getattr(config, item.name) is not None]
    if asked:
        raise UsageError(f"the module takes encoded images and preprocesses them itself; leave --{asked[0]} out")


def check_levels(handle: str, transform: ImageTransform, signature: ImageSignature) -> None:
    """Checks that a module of uint8 gets levels.

    Raises:
      UsageError: the transform changes them.
    """
    if signature.dtype == "uint8" and not transform.keeps_levels:
        raise UsageError(
            f"module {handle} takes levels from 0 to 255 (uint8), and the transform makes {transform.describe()}; "
            "leave --input_range, --mean and --std out, or say --preprocess=raw255"
        )


def check_size(named: NamedTransform | None, signature: ImageSignature) -> None:
    """Checks that a module takes images of the size for which a transform was written.

    Raises:
      ModuleError: the sizes differ.
    """
    size = named.image_size if named else None
    if named and size not in (None, (signature.height, signature.width)):
        assert size is not None
        raise ModuleError(
            f"the {named.source} is for images of {size[0]}x{size[1]} pixels, and the module takes "
            f"{signature.height}x{signature.width}; name the right one with --preprocess"
        )
