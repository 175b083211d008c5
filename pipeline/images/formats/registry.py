"""The image formats that the pipeline decodes, one line each."""

from __future__ import annotations

from pipeline.images.formats.avif import Avif
from pipeline.images.formats.base import ImageFormat
from pipeline.images.formats.bmp import Bmp
from pipeline.images.formats.gif import Gif
from pipeline.images.formats.heif import Heif
from pipeline.images.formats.jpeg import Jpeg
from pipeline.images.formats.png import Png
from pipeline.images.formats.tiff import Tiff
from pipeline.images.formats.webp import WebP

FORMATS: tuple[ImageFormat, ...] = (
    Jpeg(),
    Png(),
    Gif(),
    Bmp(),
    WebP(),
    Tiff(),
    Avif(),
    Heif(),
)
EXTENSIONS = tuple(extension for image_format in FORMATS for extension in image_format.extensions)
"""Endings of the names of image files, lower-case, with the dot."""
