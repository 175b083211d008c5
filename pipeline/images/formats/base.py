"""`ImageFormat`: the protocol of an image format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from pipeline.core.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]


def ignore_damage(_: str) -> None:
    """Ignores reports of damage."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size of an image in pixels.

    Attributes:
      height: rows.
      width: columns.
    """

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How a format decodes an image.

    Attributes:
      exif_orientation: whether the image is turned upright by its EXIF orientation.
      max_pixels: limit of `check_size`.
      min_size: smallest sufficient size, after turning. A format that decodes faster at a reduced scale may
        return any size that is not below it. None: the full size.
      report_damage: called with one line for people if the image is damaged, but has pixels all the same. May raise
        an `ImageError`, to refuse the image.
    """

    exif_orientation: bool
    max_pixels: int
    min_size: ImageSize | None = None
    report_damage: Callable[[str], None] = ignore_damage

    def check_size(self, height: int, width: int) -> None:
        """Checks the size of an image.

        Raises:
          ImageError: with reason `too_large`; the image has more than `max_pixels` pixels.
        """
        if height * width > self.max_pixels:
            raise ImageError(
                "too_large",
                f"{height}x{width} pixels are more than the limit of {self.max_pixels}: "
                "shrink the image or raise max_pixels",
            )


class ImageFormat(Protocol):
    """An image format: its names, its header and its decoder.

    A format is one module of this folder and one line of `registry.py`. Its class is a frozen dataclass, so
    that decoders can be pickled and compared. All methods are safe to call from several threads at once.
    The module imports decoding libraries only inside `decode`: the names of all formats are available
    without them.

    Attributes:
      name: lower-case name, as in `ImageHeader.format` and in messages: `jpeg`.
      title: name in lists of formats for users: `JPEG`.
      extensions: endings of file names, lower-case, with the dot.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]

    def matches(self, start: bytes) -> bool:
        """Returns whether an image that begins with `start` (up to 4096 bytes) has this format."""

    def read_size(self, data: bytes) -> ImageSize:
        """Returns the size that the header declares, before any turning; decodes no pixels.

        Raises:
          ImageError: the header is damaged, or declares a variant that is not decoded.
        """

    def decode(self, data: bytes, request: DecodeRequest) -> Pixels:
        """Returns the pixels of the first frame or page, uint8 [H, W, 3], RGB.

        The caller has checked the size in the header. If a frame can be larger than the header declares,
        `decode` calls `request.check_size` before it allocates the frame.

        Raises:
          ImageError: the image cannot be decoded. `ImageDecoder` turns any other exception into one.
        """
