"""`ImageDecoder`: decodes images to RGB pixels of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ImageError, UsageError
from pipeline.images.apply import apply_transform
from pipeline.images.damage import decoding_error
from pipeline.images.formats.base import DecodeRequest, ImageFormat, ImageSize
from pipeline.images.formats.registry import FORMATS
from pipeline.images.headers import header_of, identify
from pipeline.images.transform import ImageTransform

if TYPE_CHECKING:
    from pipeline.images.formats.base import Pixels

DecodeMode = Literal["exact", "fast"]
Out = TypeVar("Out", npt.NDArray[np.float32], npt.NDArray[np.uint8])


@dataclass(frozen=True, slots=True)
class ImageDecoder:
    """Decodes one image and transforms it; picklable, and safe to call from several threads at once.

    The pixels are those of `tf.io.decode_jpeg(channels=3, dct_method="INTEGER_ACCURATE")`. With the default
    transform, the result is these pixels divided by 255 and `tf.image.resize(method="bilinear",
    antialias=False)`, up to the rounding of float32. Grey becomes
    RGB, alpha is dropped, CMYK is converted, 16-bit samples keep their upper 8 bits. Only the first of several
    frames or pages is decoded; the others may be incomplete. Samples of 12, 32 or 64 bits, floats and Lab colours
    are refused.

    Attributes:
      height: rows of the result.
      width: columns of the result.
      decode: `exact`, or `fast`: decodes JPEG at the smallest of libjpeg's scales (eighths) that is not below
        the size of the result, which aliases differently. Other formats, and CMYK, are decoded as with `exact`.
      exif_orientation: turn the image upright first, by its EXIF orientation.
      max_pixels: limit of the number of pixels in the header.
      max_image_bytes: limit of the size of the encoded image.
      formats: the formats to decode, in the order in which they are tried.
      transform: how the decoded pixels become the result.
    """

    height: int
    width: int
    decode: DecodeMode = "exact"
    exif_orientation: bool = False
    max_pixels: int = 100_000_000
    max_image_bytes: int = 64 << 20
    formats: tuple[ImageFormat, ...] = FORMATS
    transform: ImageTransform = ImageTransform()

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.decode not in ("exact", "fast"):
            raise UsageError(f"decode={self.decode!r}: expected 'exact' or 'fast'")

    @overload
    def __call__(self, data: bytes, out: None = None) -> npt.NDArray[np.float32]: ...

    @overload
    def __call__(self, data: bytes, out: Out) -> Out: ...

    def __call__(
        self, data: bytes, out: npt.NDArray[np.float32] | npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
        """Returns the image after its transform, [height, width, 3]; by default RGB in [0, 1].

        Args:
          data: the encoded image.
          out: where to write the result, such as one image of a batch; default: a new float32 array. A
            float32 array gets the values. A uint8 array gets the levels from 0 to 255, rounded; the transform
            must keep levels.

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
        apply_transform(self._decode(data), self.transform, out)
        return out

    def _decode(self, data: bytes) -> Pixels:
        if len(data) > self.max_image_bytes:
            raise ImageError(
                "too_large",
                f"{len(data)} encoded bytes are more than the limit of {self.max_image_bytes}: "
                "shrink the image or raise max_image_bytes",
            )
        image_format = identify(data, self.formats)
        min_size = ImageSize(*self.transform.box(self.height, self.width)) if self.decode == "fast" else None
        request = DecodeRequest(self.exif_orientation, self.max_pixels, min_size)
        try:
            header = header_of(data, image_format)
            request.check_size(header.height, header.width)
            return image_format.decode(data, request)
        except (ImageError, ImportError):  # a library that is not installed is no damage
            raise
        except Exception as error:  # Decoding libraries raise exceptions of any kind for damaged images.
            raise decoding_error(image_format.name, error) from error
