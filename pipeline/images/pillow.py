"""Decoding with Pillow: opens a file, reads its EXIF orientation, and converts its pixels to RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageFile, TiffTags

from pipeline.core.errors import ImageError
from pipeline.images.damage import out_of_memory
from pipeline.images.formats.base import DecodeRequest
from pipeline.images.orientation import ORIENTATIONS, turn

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

File = TypeVar("File", bound=ImageFile.ImageFile)

GREY_OF_16_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes for 16-bit grey."""
# Pillow's modes that become 8-bit RGB without a choice about their range.
_MODES_OF_8_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})

_ORIENTATION_TAG = 274
# The limit of a JPEG segment. Pillow may copy a larger block once for each of its tags.
_MAX_EXIF_BYTES = 1 << 16


def decode(
    name: str, plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, request: DecodeRequest
) -> Pixels:
    """Returns the pixels of an image, uint8 [H, W, 3], RGB, turned upright if the request says so.

    Args:
      name: name of the format, for messages.
      plugin: Pillow's class for files of the format.
      data: the encoded image.
      request: how to decode it; the result has the full size.

    Raises:
      ImageError: the image is too large, or has pixels of an unusual kind.
      Exception: any that Pillow raises for damaged images.
    """
    return pixels_of(open_image(name, plugin, data, request), request)


def open_image(name: str, plugin: Callable[[io.BytesIO], File], data: bytes, request: DecodeRequest) -> File:
    """Returns an open image; its pixels are not loaded yet. Arguments and errors are those of `decode`."""
    try:
        # Not `Image.open`, which applies the process-wide MAX_IMAGE_PIXELS.
        image = plugin(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise out_of_memory(name) from error
    request.check_size(image.height, image.width)
    return image


def pixels_of(image: ImageFile.ImageFile, request: DecodeRequest, *, holds_ink: bool = True) -> Pixels:
    """Returns the pixels of an open image, turned upright if the request says so; see `decode` and `to_rgb`."""
    orientation = orientation_of(image) if request.exif_orientation else 1
    image.load()
    return turn(to_rgb(image, holds_ink=holds_ink), orientation)


def orientation_of(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if there is none or it cannot be read."""
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        exif = image.getexif()
        for group in TiffTags.TAGS_V2_GROUPS:  # In a TIFF, Pillow would read these tags too, whatever their size.
            if group in exif:
                del exif[group]
        orientation = exif.get(_ORIENTATION_TAG, 1)
        return orientation if orientation in ORIENTATIONS else 1
    except Exception:  # Damaged EXIF is no reason to refuse the pixels.
        return 1


def to_rgb(image: ImageFile.ImageFile, *, holds_ink: bool = True) -> Pixels:
    """Returns the pixels of a loaded image, uint8 [H, W, 3], RGB.

    Grey becomes RGB, alpha is dropped, and 16-bit grey keeps its upper 8 bits.

    Args:
      image: the image.
      holds_ink: whether CMYK samples are amounts of ink, rather than of light.

    Raises:
      ImageError: the samples are neither integers of up to 8 bits nor 16-bit grey.
    """
    if image.mode in GREY_OF_16_BITS:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "CMYK":
        ink = np.asarray(image)
        return light_to_rgb(255 - ink if holds_ink else ink)
    if image.mode not in _MODES_OF_8_BITS:
        raise unusual_mode(image)
    image.info.pop("transparency", None)  # The conversion would apply it, or warn.
    opaque = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode))
    return np.asarray(opaque.convert("RGB"))


def light_to_rgb(light: Pixels) -> Pixels:
    """Returns inverted CMYK samples, uint8 [H, W, 4], as RGB, by TensorFlow's formula."""
    wide = light.astype(np.uint16)
    return (wide[..., :3] * wide[..., 3:] // 255).astype(np.uint8)


def unusual_mode(image: ImageFile.ImageFile) -> ImageError:
    """Returns the error for an image whose samples `to_rgb` does not convert."""
    return ImageError(
        "unsupported_format",
        f"a {image.format} of Pillow's mode {image.mode}; expected integers of up to 8 bits, or of 16: convert it",
    )
