"""Colour profiles (ICC) of images, and their conversion to sRGB by littlecms."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, ImageFile

from pipeline.images import pillow, pillow_files
from pipeline.images.damage import unpack
from pipeline.images.formats.base import DecodeRequest
from pipeline.images.formats.tiff_pages import find_picture, starting_with
from pipeline.images.orientation import turn, turn_back

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

_MAX_PROFILE_BYTES = 8 << 20
_PLUGINS = {
    "jpeg": pillow_files.JpegFile,
    "webp": pillow_files.WebPFile,
    "tiff": pillow_files.TiffFile,
    "avif": pillow_files.AvifFile,
}


def to_srgb(pixels: Pixels, data: bytes, name: str, request: DecodeRequest) -> Pixels:
    """Returns pixels in sRGB; unchanged if the image has no profile, or one that is damaged or of another kind.

    The rendering intent is relative colorimetric, with black point compensation, as in browsers. 16-bit samples are
    converted after they became 8-bit ones.

    Args:
      pixels: of the image, uint8 [H, W, 3], RGB, in the colours that the profile describes.
      data: the encoded image.
      name: name of its format.
      request: how it was decoded.
    """
    try:
        profile_bytes = read_profile(data, name, request)
        if not profile_bytes or len(profile_bytes) > _MAX_PROFILE_BYTES:
            return pixels
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        space = profile.profile.xcolor_space.strip()
        if space == "RGB":
            return _convert(Image.fromarray(np.ascontiguousarray(pixels)), profile)
        if space == "GRAY" and (pixels == pixels[..., :1]).all():
            return _convert(Image.fromarray(np.ascontiguousarray(pixels[..., 0])), profile)
        if space == "CMYK" and name in ("jpeg", "tiff"):
            return _convert_ink(pixels, data, name, profile, request)
    except Exception:  # A damaged profile is no reason to refuse the pixels.
        return pixels
    return pixels


def read_profile(data: bytes, name: str, request: DecodeRequest) -> bytes | None:
    """Returns the profile in an encoded image, or None; may raise any exception if the image is damaged."""
    if name == "png":
        return _profile_of_png(data)
    if name == "heif":
        import pillow_heif

        found: bytes | None = pillow_heif.open_heif(data).info.get("icc_profile")
        return found
    if name not in _PLUGINS:
        return None
    return _open(data, name, request).info.get("icc_profile")


def _open(data: bytes, name: str, request: DecodeRequest) -> ImageFile.ImageFile:
    if name == "tiff":
        data = starting_with(data, find_picture(data))
    return pillow.open_image(name, _PLUGINS[name], data, request)


def _profile_of_png(data: bytes) -> bytes | None:
    """Returns the content of the chunk `iCCP`, PNG specification (third edition) section 11.3.2.3."""
    position, kind = 8, b""
    while kind not in (b"IDAT", b"IEND"):
        content_bytes, kind = unpack("png", ">I4s", data, position)
        if kind == b"iCCP":
            content = data[position + 8 : position + 8 + content_bytes]
            compressed = content[content.index(b"\0") + 2 :]
            return zlib.decompressobj().decompress(compressed, _MAX_PROFILE_BYTES + 1)
        position += 12 + content_bytes
    return None


def _convert(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Pixels:
    converted = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # only a conversion in place returns None
    return np.asarray(converted)


def _convert_ink(
    pixels: Pixels, data: bytes, name: str, profile: ImageCms.ImageCmsProfile, request: DecodeRequest
) -> Pixels:
    """Returns the colours of the ink itself; `pixels` come from a formula without a profile."""
    image = _open(data, name, request)
    orientation = pillow.orientation_of(image)
    image.load()
    if image.mode != "CMYK":
        return pixels
    is_light = name == "jpeg" and "adobe" not in image.info  # Pillow inverts the CMYK of every JPEG
    converted = _convert(Image.fromarray(255 - np.asarray(image), "CMYK") if is_light else image, profile)
    if name == "tiff":  # Pillow turns every TIFF upright
        return converted if request.exif_orientation else turn_back(converted, orientation)
    return turn(converted, orientation) if request.exif_orientation else converted
