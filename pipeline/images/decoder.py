"""Encoded image bytes to float32 [H, W, 3] in [0, 1], RGB.

JPEG is decoded by libjpeg-turbo (simplejpeg: it releases the GIL and gives the pixels of
`tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`), everything else by Pillow.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    WebPImagePlugin,
)

from pipeline.core.errors import ImageError, UsageError
from pipeline.images.headers import (
    ImageFormat,
    ImageHeader,
    gif_first_frame,
    png_pixel_chunks,
    read_header,
    read_jpeg_frame,
    truncated,
)

__all__ = ["DecodeMode", "ImageDecoder", "ImageHeader", "read_header"]

DecodeMode = Literal["exact", "fast"]
Pixels = npt.NDArray[np.uint8]

# What the bytes are worth is said by an image or by an ImageError, not by warnings on stderr.
# A filter set once is safe among threads, `warnings.catch_warnings` is not.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Images are decoded on several threads already.
cv2.setNumThreads(1)

_PLUGINS: dict[ImageFormat, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}
# The modes of Pillow's images that become 8-bit RGB without a choice to make about their range.
_MODES_8_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})
_MODES_16_BIT_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

_ORIENTATION_TAG = 274
# EXIF orientation to (swap rows and columns, then flip rows, then flip columns) that make it upright,
# EXIF 2.32 section 4.6.4, tag 274.
_UPRIGHT = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# A JPEG segment holds no more. Larger blocks can make Pillow copy them once for each of their tags.
_MAX_EXIF_BYTES = 1 << 16
_MAX_EXIF_SEGMENTS = 100

# Every scan of a progressive JPEG visits all of its blocks, and a scan may be a few bytes short. Encoders
# write about ten; libjpeg-turbo's own fuzzers stop at 500.
_MAX_JPEG_SCANS = 500
_JPEG_SEQUENTIAL = frozenset({0xC0, 0xC1})


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Decodes one image and resizes it; picklable, and safe to call from several threads at once.

    The result is that of `tf.io.decode_jpeg(channels=3, dct_method="INTEGER_ACCURATE")` divided by 255
    and `tf.image.resize(method="bilinear", antialias=False)`, up to the rounding of float32. Grey becomes
    RGB, alpha is dropped, CMYK is converted, 16-bit samples keep their upper 8 bits, and of several frames
    or pages the first is taken, which alone needs to be whole. Samples of 12, 32 or 64 bits, floats and
    Lab colours are refused.

    Attributes:
      height: rows of the result.
      width: columns of the result.
      decode: `exact`, or `fast`: JPEG is decoded at the smallest of libjpeg's scales (eighths) that is
        not below the wanted size, which aliases differently. Other formats, and CMYK, are as `exact`.
      exif_orientation: turn the image upright first, as its EXIF orientation says.
      max_pixels: largest image that is decoded, in pixels, by its header.
      max_image_bytes: largest encoded image that is looked at.
    """

    height: int
    width: int
    decode: DecodeMode = "exact"
    exif_orientation: bool = False
    max_pixels: int = 100_000_000
    max_image_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.decode not in ("exact", "fast"):
            raise UsageError(f"decode={self.decode!r}: expected 'exact' or 'fast'")

    def __call__(self, data: bytes, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Returns the image as float32 [height, width, 3], RGB in [0, 1].

        Args:
          data: the encoded image.
          out: where to write the result, such as one image of a batch; a new array by default.

        Raises:
          ImageError: nothing else, whatever the bytes, with reason `empty`, `not_an_image`,
            `unsupported_format`, `truncated` or `too_large`. `out` is unchanged then.
          ValueError: `out` has another shape or dtype.
        """
        shape = (self.height, self.width, 3)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"out is {out.dtype} {list(out.shape)}: expected float32 {list(shape)}")
        _resize(self._decode(data), out)
        return out

    def _decode(self, data: bytes) -> Pixels:
        if len(data) > self.max_image_bytes:
            raise ImageError(
                "too_large",
                f"{len(data)} encoded bytes are more than the limit of {self.max_image_bytes}: "
                "shrink the image or raise max_image_bytes",
            )
        header = read_header(data)
        self._check_size(header.height, header.width)
        try:
            if header.format == "jpeg":
                return self._decode_jpeg(data)
            if header.format == "png":
                data = png_pixel_chunks(data)
            elif header.format == "gif":
                data = gif_first_frame(data)
            return self._decode_with_pillow(data, header.format)
        except ImageError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever their parsing trips over.
            raise _image_error(header.format, error) from error

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self.max_pixels:
            raise ImageError(
                "too_large",
                f"{height}x{width} pixels are more than the limit of {self.max_pixels}: "
                "shrink the image or raise max_pixels",
            )

    def _decode_jpeg(self, data: bytes) -> Pixels:
        frame = read_jpeg_frame(data)
        if frame.process not in _JPEG_SEQUENTIAL and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
            raise ImageError("too_large", f"a JPEG of more than {_MAX_JPEG_SCANS} scans: save it anew with fewer")
        if frame.components == 4:
            return self._decode_with_pillow(data, "jpeg")
        orientation = _jpeg_orientation(data) if self.exif_orientation else 1
        smallest = (0, 0)
        if self.decode == "fast":
            smallest = (self.width, self.height) if orientation >= 5 else (self.height, self.width)
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=smallest[0], min_width=smallest[1], strict=True)
        except ValueError as error:
            if "Premature end of JPEG file" in str(error):
                raise truncated("jpeg") from error
            # Strict mode is what notices the end of the data, but it also fails on damage that libjpeg
            # only warns of. TensorFlow goes on after such a warning, and Pillow does with the same pixels.
            return self._decode_with_pillow(data, "jpeg")
        return _turn(pixels, orientation)

    def _decode_with_pillow(self, data: bytes, image_format: ImageFormat) -> Pixels:
        image = _open(image_format, data)
        # The first frame of a GIF may reach beyond the size in the header.
        self._check_size(image.height, image.width)
        orientation = _orientation(image) if self.exif_orientation or image_format == "tiff" else 1
        image.load()
        pixels = _to_rgb(image)
        if image_format != "tiff":
            return _turn(pixels, orientation)
        # Pillow has turned a TIFF upright already.
        return pixels if self.exif_orientation else _turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def _open(image_format: ImageFormat, data: bytes) -> ImageFile.ImageFile:
    """Returns Pillow's view of an image, whose pixels are not loaded yet."""
    # Pillow joins the EXIF segments of a JPEG one by one, in a time that is the square of their number.
    if image_format == "jpeg" and data.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS:
        raise ImageError("not_an_image", f"corrupt jpeg: more than {_MAX_EXIF_SEGMENTS} EXIF segments")
    # The plugin itself rather than `Image.open`, which applies the process-wide MAX_IMAGE_PIXELS.
    return _PLUGINS[image_format](io.BytesIO(data))


def _orientation(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        exif = image.getexif()
        for group in TiffTags.TAGS_V2_GROUPS:  # Pillow would read these of a TIFF too, whatever their size.
            if group in exif:
                del exif[group]
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # Damaged EXIF is no reason to refuse the pixels.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _jpeg_orientation(data: bytes) -> int:
    try:
        return _orientation(_open("jpeg", data))
    except Exception:  # Pillow gives up on headers that libjpeg takes.
        return 1


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Returns `pixels` [H, W, 3] turned upright from an EXIF orientation."""
    swap, flip_rows, flip_columns = _UPRIGHT.get(orientation, (False, False, False))
    if swap:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _to_rgb(image: ImageFile.ImageFile) -> Pixels:
    """Returns the pixels of a loaded image, [H, W, 3]."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode in _MODES_16_BIT_GREY and tags.get(258, (16,)) == (16,):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        if tags.get(262) == 0:  # white is zero
            grey = ~grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "CMYK":
        # TensorFlow's formula. Pillow inverts every JPEG, but only Adobe's hold ink inverted.
        light = np.asarray(image).astype(np.uint16)
        if image.format != "JPEG" or "adobe" in image.info:
            light = 255 - light
        return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    if image.mode not in _MODES_8_BIT:
        raise ImageError(
            "unsupported_format",
            f"a {image.format} of Pillow's mode {image.mode}; expected integers of up to 8 bits, or of 16: convert it",
        )
    image.info.pop("transparency", None)  # Conversion would mix it in, or warn.
    opaque = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode))
    return np.asarray(opaque.convert("RGB"))


_TRUNCATED = re.compile("truncated", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    "unsupported|not (yet )?supported|not available|unknown pixel mode|unknown data organi[sz]ation", re.IGNORECASE
)


def _image_error(image_format: ImageFormat, error: Exception) -> ImageError:
    """Returns what an exception of Pillow says about the image."""
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return ImageError("too_large", f"decoding the {image_format} takes more memory than there is: shrink it")
    text = " ".join(str(error).split()) or type(error).__name__
    if _TRUNCATED.search(text):
        return truncated(image_format)
    if _UNSUPPORTED.search(text):
        return ImageError("unsupported_format", f"an unusual {image_format}: {text}; convert it to PNG or JPEG")
    return ImageError("not_an_image", f"corrupt {image_format}: {text}")


@lru_cache(maxsize=1024)
def _neighbours(source: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Returns, for each of `target` places: its lower and upper neighbour of `source`, and the upper's weight.

    Half-pixel centres in float32, as `tf.image.resize` has them.
    """
    half = np.float32(0.5)
    place = (np.arange(target, dtype=np.float32) + half) * (np.float32(source) / np.float32(target)) - half
    floor = np.floor(place)
    lower = np.maximum(floor, 0).astype(np.intp)
    upper = np.minimum(np.ceil(place), source - 1).astype(np.intp)
    return lower, upper, place - floor


def _resize(pixels: Pixels, out: npt.NDArray[np.float32]) -> None:
    """Writes `pixels` [h, w, 3], scaled to [0, 1], to `out` [H, W, 3], bilinearly and without antialiasing.

    Two ways to the same numbers, up to the rounding of the places between pixels. OpenCV on the whole
    image is the quickest up to a few times the size of the result; beyond, only the pixels that count are
    gathered and converted.
    """
    height, width, _ = out.shape
    if pixels.shape[0] <= 6 * height and pixels.shape[1] <= 6 * width:
        resized = cv2.resize(pixels.astype(np.float32, order="C"), (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        left, right, right_weight = _neighbours(pixels.shape[1], width)
        top, bottom, bottom_weight = _neighbours(pixels.shape[0], height)

        def across(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
            lines = pixels.take(rows, axis=0)
            begin = lines.take(left, axis=1).astype(np.float32)
            return begin + (lines.take(right, axis=1) - begin) * right_weight[:, None]

        upper = across(top)
        resized = upper + (across(bottom) - upper) * bottom_weight[:, None, None]
    np.multiply(resized, np.float32(1 / 255), out=out)
    np.minimum(out, np.float32(1), out=out)  # The sum of two weights may round to just above 1.
