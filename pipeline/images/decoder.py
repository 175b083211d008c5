"""`ImageDecoder`: decodes images to RGB pixels of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ImageError, UsageError
from pipeline.images.apply import apply_transform
from pipeline.images.damage import decoding_error
from pipeline.images.formats.base import DecodeRequest, ImageFormat, ImageSize, ignore_damage
from pipeline.images.formats.registry import FORMATS
from pipeline.images.headers import header_of, identify
from pipeline.images.transform import ImageTransform

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

DecodeMode = Literal["exact", "fast"]
OnDamaged = Literal["embed", "fail"]
Icc = Literal["ignore", "srgb"]
Out = TypeVar("Out", npt.NDArray[np.float32], npt.NDArray[np.uint8])


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Decodes one image and transforms it; picklable, and safe to call from several threads at once.

    The pixels are those of `tf.io.decode_jpeg(channels=3, dct_method="INTEGER_ACCURATE")`. With the default
    transform, the result is these pixels divided by 255 and `tf.image.resize(method="bilinear",
    antialias=False)`, up to the rounding of float32. Grey becomes
    RGB, alpha is dropped, CMYK is converted, 16-bit samples keep their upper 8 bits. Only the first of several
    frames or pages is decoded, except for a TIFF that begins with a thumbnail; the others may be incomplete.
    Samples of 12, 32 or 64 bits, floats and Lab colours are refused.

    Attributes:
      height: rows of the result.
      width: columns of the result.
      decode: `exact`, or `fast`: decodes JPEG at the smallest of libjpeg's scales (eighths) that is not below
        the size of the result, which aliases differently. Other formats, and CMYK, are decoded as with `exact`.
      exif_orientation: turn the image upright first, by its EXIF orientation.
      max_pixels: limit of the number of pixels in the header.
      max_image_bytes: limit of the size of the encoded image.
      on_damaged: whether a damaged image that has pixels all the same is decoded, as TensorFlow does, and reported
        (`embed`), or refused (`fail`).
      icc: whether the image's colour profile is ignored, as by TensorFlow, or the pixels are converted to sRGB
        (`srgb`).
      formats: the formats to decode, in the order in which they are tried.
      transform: how the decoded pixels become the result.
    """

    height: int
    width: int
    decode: DecodeMode = "exact"
    exif_orientation: bool = False
    max_pixels: int = 100_000_000
    max_image_bytes: int = 64 << 20
    on_damaged: OnDamaged = "embed"
    icc: Icc = "ignore"
    formats: tuple[ImageFormat, ...] = FORMATS
    transform: ImageTransform = ImageTransform()

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.decode not in ("exact", "fast"):
            raise UsageError(f"decode={self.decode!r}: expected 'exact' or 'fast'")
        if self.on_damaged not in ("embed", "fail"):
            raise UsageError(f"on_damaged={self.on_damaged!r}: expected 'embed' or 'fail'")
        if self.icc not in ("ignore", "srgb"):
            raise UsageError(f"icc={self.icc!r}: expected 'ignore' or 'srgb'")

    @overload
    def __call__(
        self, data: bytes, out: None = None, *, report_damage: Callable[[str], None] = ...
    ) -> npt.NDArray[np.float32]: ...

    @overload
    def __call__(self, data: bytes, out: Out, *, report_damage: Callable[[str], None] = ...) -> Out: ...

    def __call__(
        self,
        data: bytes,
        out: npt.NDArray[np.float32] | npt.NDArray[np.uint8] | None = None,
        *,
        report_damage: Callable[[str], None] = ignore_damage,
    ) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
        """Returns the image after its transform, [height, width, 3]; by default RGB in [0, 1].

        Args:
          data: the encoded image.
          out: where to write the result, such as one image of a batch; default: a new float32 array. A
            float32 array gets the values. A uint8 array gets the levels from 0 to 255, rounded; the transform
            must keep levels.
          report_damage: called with one line for people if the image is damaged, but decoded all the same: a part of
            its pixels may be missing or wrong. Not called if `on_damaged` is `fail`.

        Raises:
          ImageError: the only error that bytes can cause, with reason `empty`, `not_an_image`,
            `unsupported_format`, `truncated` or `too_large`. `out` is unchanged then.
          ValueError: `out` has another shape or dtype, or its dtype cannot hold the values.
          ImportError: the library that decodes the format is not installed.
        """
        shape = (self.height, self.width, 3)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype not in (np.float32, np.uint8):
            raise ValueError(f"out is {out.dtype} {list(out.shape)}: expected float32 or uint8 {list(shape)}")
        apply_transform(self._decode(data, report_damage), self.transform, out)
        return out

    def _decode(self, data: bytes, report_damage: Callable[[str], None]) -> Pixels:
        if len(data) > self.max_image_bytes:
            raise ImageError(
                "too_large",
                f"{len(data)} encoded bytes are more than the limit of {self.max_image_bytes}: "
                "shrink the image or raise max_image_bytes",
            )
        image_format = identify(data, self.formats)
        min_size = ImageSize(*self.transform.box(self.height, self.width)) if self.decode == "fast" else None
        report = _refuse_damage if self.on_damaged == "fail" else report_damage
        request = DecodeRequest(self.exif_orientation, self.max_pixels, min_size, report)
        try:
            header = header_of(data, image_format)
            request.check_size(header.height, header.width)
            pixels = image_format.decode(data, request)
        except (ImageError, ImportError):  # a library that is not installed is no damage
            raise
        except Exception as error:  # Decoding libraries raise exceptions of any kind for damaged images.
            raise decoding_error(image_format.name, error) from error
        if self.icc == "srgb":
            from pipeline.images.profiles import to_srgb

            pixels = to_srgb(pixels, data, image_format.name, request)
        return pixels


def _refuse_damage(message: str) -> NoReturn:
    raise ImageError("truncated", f"{message}; fetch the file again")
