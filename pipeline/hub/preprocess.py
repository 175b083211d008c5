"""The transform that a module wants for its images: as it is named, declared or shown.

Everything that needs this transform calls `choose_transform`: a run, `describe` and `finetune`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.core.errors import ModuleError, UsageError
from pipeline.core.settings import PreprocessConfig
from pipeline.core.suggestions import describe_unknown
from pipeline.hub.detective import detect_transform
from pipeline.hub.named_transform import NamedTransform
from pipeline.images.transform import ImageTransform
from pipeline.images.transforms.files import FileTransform, find_transform, read_transform
from pipeline.images.transforms.registry import PRESETS
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.signatures import ImageSignature

_log = logging.getLogger(__name__)

_HUB_INPUT, _HUB_OUTPUT = "images", "default"
_FLAGS = "flags"


@dataclass(frozen=True)
class Context:
    """What a caller knows about a module that declares no preprocessing.

    Attributes:
      existing: returns the transform of the data set to extend, for the digest of its module; None for any other
        module, and without such a data set.
      images: returns encoded images of the input.
      may_load: whether the network may be loaded, which runs a module's code.
    """

    existing: Callable[[str], ImageTransform | None] = lambda _: None
    images: Callable[[], Iterable[bytes]] = tuple
    may_load: bool = True


NO_CONTEXT = Context()


def choose_transform(
    module: Module, signature: ImageSignature, config: PreprocessConfig, context: Context = NO_CONTEXT
) -> NamedTransform | None:
    """Returns the transform for the images of a module's function.

    It is the first of these that there is: `--preprocess`; a file in the module's directory; the module's own
    declaration; the transform of the existing data set of the same module; what the network shows, as
    `detect_transform` finds it. The flags for single values then override its values.

    Args:
      module: the module.
      signature: its function, chosen with `default_size=size_of_transform(module, config)`.
      config: the flags.
      context: for a module that declares nothing.

    Returns:
      The transform; None for a function that takes encoded images and preprocesses them itself.

    Raises:
      UsageError: the transform cannot be honoured.
      ModuleError: the transform is unknown, or is for images of another size.
    """
    if signature.is_encoded:
        _refuse_transform(config)
        return None
    named = _named_transform(module, config)
    _check_size(named, signature)
    named = named or declared_transform(module, signature) or _undeclared(module, signature, config, context)
    named = _override(named, config)
    _check_levels(module.handle, named.transform, signature)
    return named


def size_of_transform(module: Module, config: PreprocessConfig) -> tuple[int, int] | None:
    """Returns the image size of `--preprocess`, or of a file in the module's directory; None if neither has one.

    Raises:
      UsageError: the named preset or file cannot be honoured, or the file in the module's directory.
    """
    named = _named_transform(module, config)
    return named.image_size if named else None


def _named_transform(module: Module, config: PreprocessConfig) -> NamedTransform | None:
    """Returns the transform that the user names, or that a file in the module's directory describes.

    The flags for single values are not applied yet. None if neither names a transform, and these flags do not
    settle the values either.
    """
    if config.preprocess is not None:
        return _by_flag(config.preprocess)
    found = find_transform(module.path)
    if found is not None:
        name, in_file = found
        return NamedTransform(in_file.transform, f"{name} in the module's directory", in_file.image_size)
    if config.input_range is not None or (config.mean is not None and config.std is not None):
        return NamedTransform(ImageTransform(), _FLAGS)
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


def _undeclared(
    module: Module, signature: ImageSignature, config: PreprocessConfig, context: Context
) -> NamedTransform:
    """Returns the transform for a module that declares none: that of its data set, or what its network shows."""
    existing = context.existing(module.sha256)
    if existing is not None:
        return NamedTransform(existing, "data set")
    if not context.may_load:
        raise ModuleError(
            f"module {module.handle} does not say how its images are scaled, and its network is not looked at, because "
            "it has unsafe operations; say --preprocess"
        )
    detected = detect_transform(module, signature, context.images(), is_resize_known=config.resize is not None)
    _log.info("preprocessing of module %s: %s", module.handle, detected)
    return detected


def _override(named: NamedTransform, config: PreprocessConfig) -> NamedTransform:
    """Returns a transform with the flags for single values applied.

    An input range alone replaces mean and std, which are in units of the range.
    """
    changes = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)
        if item.name != "preprocess" and getattr(config, item.name) is not None
    }
    if not changes:
        return named
    transform, source = named.transform, named.source
    if "input_range" in changes:
        transform = dataclasses.replace(transform, mean=ImageTransform.mean, std=ImageTransform.std)
    if source != _FLAGS:
        source = f"{source}, with {', '.join(f'--{name}' for name in changes)}"
    return dataclasses.replace(named, transform=dataclasses.replace(transform, **changes), source=source)


def _refuse_transform(config: PreprocessConfig) -> None:
    asked = [item.name for item in dataclasses.fields(config) if getattr(config, item.name) is not None]
    if asked:
        raise UsageError(f"the module takes encoded images and preprocesses them itself; leave --{asked[0]} out")


def _check_levels(handle: str, transform: ImageTransform, signature: ImageSignature) -> None:
    if signature.dtype == "uint8" and not transform.keeps_levels:
        raise UsageError(
            f"module {handle} takes levels from 0 to 255 (uint8), and the transform makes {transform.describe()}; "
            "leave --input_range, --mean and --std out, or say --preprocess=raw255"
        )


def _check_size(named: NamedTransform | None, signature: ImageSignature) -> None:
    size = named.image_size if named else None
    if named and size not in (None, (signature.height, signature.width)):
        assert size is not None
        raise ModuleError(
            f"the {named.source} is for images of {size[0]}x{size[1]} pixels, and the module takes "
            f"{signature.height}x{signature.width}; name the right one with --preprocess"
        )
