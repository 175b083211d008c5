"""Thumbnails of a data set's images, within a budget of bytes."""

from __future__ import annotations

import base64
import io
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.core.cores import usable_cores
from pipeline.core.errors import ImageError
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transform import ImageTransform
from pipeline.report.originals import read_images

DATA_URI = "data:image/webp;base64,"
_SIDES = (32, 160)
_FEATURED_SIDE = 128
_BYTES_PER_PIXEL = 0.36
"""Of a photograph as WebP of quality 60 in base64, with its header; less for large ones."""


@dataclass(frozen=True)
class ThumbnailMaker:
    """Makes square thumbnails: the centre of an image, as WebP.

    Attributes:
      exif_orientation: whether images are turned upright by their EXIF orientation.
    """

    exif_orientation: bool = False

    def __call__(self, image: bytes, side: int) -> str:
        """Returns the thumbnail in base64; an empty text if the image cannot be decoded.

        Args:
          image: the encoded image.
          side: of the thumbnail, in pixels.
        """
        from PIL import Image

        transform = ImageTransform(resize="crop", antialias=True)
        decoder = ImageDecoder(side, side, "fast", self.exif_orientation, transform=transform)
        pixels = np.empty((side, side, 3), np.uint8)
        try:
            decoder(image, pixels)
        except (ImageError, ImportError):
            return ""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "WEBP", quality=60, method=3)
        return base64.b64encode(file.getvalue()).decode()


def read_thumbnails(
    output: str, keys: Collection[bytes], featured: Iterable[bytes], max_bytes: int, make: ThumbnailMaker
) -> Mapping[bytes, str]:
    """Returns the thumbnails of a data set's images, in base64, by key.

    Keys are missing whose images cannot be read any more, or have no place in the budget.

    Args:
      output: directory of the data set.
      keys: of the images.
      featured: keys of a few images, which get larger thumbnails, whatever the budget is.
      max_bytes: budget of all other thumbnails together; their sizes follow from it. With 0 there are no thumbnails.
      make: makes one.

    Raises:
      OutputError: the data set is damaged.
    """
    if not max_bytes:
        return {}
    side = fitting_side(len(keys), max_bytes)
    large = set(featured)
    found: dict[bytes, str] = {}
    used = 0
    jobs = (
        (item.key, item.image, max(side, _FEATURED_SIDE) if item.key in large else side)
        for item in read_images(output, keys)
    )
    for key, thumbnail in _made(jobs, make):
        used += 0 if key in large else len(thumbnail)
        if thumbnail and (key in large or used <= max_bytes):
            found[key] = thumbnail
    return found


def fitting_side(count: int, max_bytes: int) -> int:
    """Returns the side in pixels of `count` thumbnails that have about `max_bytes` bytes together."""
    smallest, largest = _SIDES
    return min(largest, max(smallest, int(math.sqrt(max_bytes / max(1, count) / _BYTES_PER_PIXEL))))


def _made(jobs: Iterable[tuple[bytes, bytes, int]], make: ThumbnailMaker) -> Iterator[tuple[bytes, str]]:
    """Yields the keys with their thumbnails, in order; a few images at a time are in memory."""
    threads = usable_cores()
    under_way: deque[tuple[bytes, Future[str]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="thumbnail") as pool:
        for key, image, side in jobs:
            under_way.append((key, pool.submit(make, image, side)))
            while len(under_way) > 4 * threads:
                done, future = under_way.popleft()
                yield done, future.result()
        for done, future in under_way:
            yield done, future.result()
