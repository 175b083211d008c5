"""What the first bytes of a file or a value show."""

from __future__ import annotations

import re

from pipeline.images.formats.registry import FORMATS

_OTHERS: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("a ZIP archive: unpack it", re.compile(rb"PK\x03\x04")),
    ("compressed with zstd: decompress it", re.compile(rb"\x28\xb5\x2f\xfd")),
    ("compressed with bzip2: decompress it", re.compile(rb"BZh[1-9]")),
    ("compressed with xz: decompress it", re.compile(rb"\xfd7zXZ\0")),
    ("compressed with lz4: decompress it", re.compile(rb"\x04\x22\x4d\x18")),
    ("an HDF5 file", re.compile(rb"\x89HDF\r\n")),
    ("an Arrow file", re.compile(rb"ARROW1|\xff\xff\xff\xff.\0\0\0\x10\0", re.DOTALL)),
    ("a NumPy file", re.compile(rb"\x93NUMPY")),
    ("a pickle", re.compile(rb"\x80[\x02-\x05][\x95(\]}c]")),
    ("a pointer to a file of Git LFS: fetch it with git lfs pull", re.compile(rb"version https://git-lfs")),
    ("a web page: download the file itself", re.compile(rb"\s*<(?:!DOCTYPE html|html|head)", re.IGNORECASE)),
)
"""Formats that are recognised only to name them in an error message."""


def is_image(data: object) -> bool:
    """Returns whether a value is bytes that begin like an image that the pipeline decodes."""
    return isinstance(data, bytes) and any(image_format.matches(data[:64]) for image_format in FORMATS)


def describe_other(start: bytes) -> str:
    """Returns what the first bytes of a file show that is no input, such as `a ZIP archive: unpack it`; or nothing."""
    return next((title for title, pattern in _OTHERS if pattern.match(start)), "")
