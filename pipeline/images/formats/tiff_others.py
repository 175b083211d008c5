"""TIFF pages that Pillow does not decode: by OpenCV, else by tifffile and imagecodecs, which are optional."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ImageError
from pipeline.images.damage import corrupt
from pipeline.images.formats.tiff_pages import COMPRESSIONS, TiffPage
from pipeline.images.orientation import ORIENTATIONS, turn

if TYPE_CHECKING:
    from pipeline.images.formats.base import DecodeRequest, Pixels

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_DEFLATE = frozenset({8, 32946})
_OPENCV_COMPRESSIONS = _DEFLATE | {1, 5, 32773}
_EXTRA = "pip install 'embedding-pipeline[tiff]', or convert it to PNG or JPEG"


def decode(data: bytes, page: TiffPage, request: DecodeRequest, refusal: Exception | None = None) -> Pixels:
    """Returns the pixels of the first page of a TIFF, uint8 [H, W, 3], RGB; alpha is dropped, 16 bits become 8.

    Args:
      data: the TIFF.
      page: its first page.
      request: how to decode it.
      refusal: the reason why Pillow did not decode it; None if it was not asked.

    Raises:
      ImageError: no decoder knows the layout or the compression, or the data is damaged.
      Exception: any that a decoder raises for damaged images, or `refusal`.
    """
    is_integer = page.bits in ({8}, {16}) and page.has_unsigned_samples
    page.check_end(data)  # OpenCV would return pixels that it has not read
    if is_integer and _is_known_to_opencv(page):
        return _decode_with_opencv(data, page)
    is_known = is_integer and page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR)
    if not is_known and refusal is not None:
        raise refusal
    feature = _feature(page)
    if not is_known:
        raise ImageError("unsupported_format", f"a TIFF of {feature}; convert it to PNG or JPEG")
    samples = _decode_with_tifffile(data, page, feature)
    pixels = _to_rgb(samples, page.photometric)
    return turn(pixels, page.orientation) if request.exif_orientation and page.orientation in ORIENTATIONS else pixels


def _feature(page: TiffPage) -> str:
    name = COMPRESSIONS.get(page.compression, "unknown")
    planes = " in planes" if page.has_planes else ""
    bits = " and ".join(map(str, sorted(page.bits)))
    return f"compression {page.compression} ({name}), {page.samples} samples{planes} of {bits} bits"


def _is_known_to_opencv(page: TiffPage) -> bool:
    """Returns whether OpenCV decodes a page right; others lose planes or orientation, or only log an error."""
    return (
        page.compression in _OPENCV_COMPRESSIONS
        and not page.has_planes
        and page.orientation == 1
        and (page.photometric, page.samples) in ((_BLACK_IS_ZERO, 2), (_RGB, 3), (_RGB, 4))
    )


def _decode_with_opencv(data: bytes, page: TiffPage) -> Pixels:
    import cv2

    if page.compression in _DEFLATE:
        for block in page.read_blocks(data):
            try:
                zlib.decompress(block)
            except zlib.error as error:
                raise corrupt("tiff", " ".join(str(error).split())) from error
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.shape[:2] != (page.size.height, page.size.width):
        raise corrupt("tiff", "OpenCV does not decode it")
    return _to_rgb(samples[..., 2::-1] if samples.ndim == 3 else samples, page.photometric)


def _decode_with_tifffile(data: bytes, page: TiffPage, feature: str) -> npt.NDArray[Any]:
    """Returns the samples of a page, uint8 or uint16 [H, W] or [H, W, S]."""
    try:
        import tifffile
    except ImportError:
        raise ImageError("unsupported_format", f"a TIFF of {feature}: {_EXTRA}") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        read = file.pages[0]
        try:
            samples: npt.NDArray[Any] = read.asarray(maxworkers=1)
        except Exception as error:
            if "requires the 'imagecodecs'" in str(error):
                raise ImageError("unsupported_format", f"a TIFF of {feature}: {_EXTRA}") from None
            if page.compression not in COMPRESSIONS or "not supported" in str(error):
                raise ImageError("unsupported_format", f"a TIFF of {feature}; convert it to PNG or JPEG") from None
            raise
        axes = read.axes
    if axes == "SYX":
        samples, axes = np.moveaxis(samples, 0, -1), "YXS"
    if axes not in ("YX", "YXS") or samples.dtype not in (np.uint8, np.uint16):
        raise ImageError("unsupported_format", f"a TIFF of {feature}; convert it to PNG or JPEG")
    if samples.shape[:2] != (page.size.height, page.size.width):
        raise corrupt("tiff", "its pixels have another size than its header")
    return samples


def _to_rgb(samples: npt.NDArray[Any], photometric: int) -> Pixels:
    """Returns samples, uint8 or uint16 [H, W] or [H, W, S], as uint8 [H, W, 3]."""
    pixels = samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
    return ~pixels[..., :3] if photometric == _WHITE_IS_ZERO else pixels[..., :3]
