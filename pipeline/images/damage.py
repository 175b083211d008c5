"""Errors of damaged images, and unpacking of data that may end early."""

from __future__ import annotations

import re
import struct
from typing import Any

from pipeline.core.errors import ImageError

# Error messages of Pillow and of the libraries that it calls.
_TRUNCATED = re.compile("truncated", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    "unsupported|not (yet )?supported|not available|unknown pixel mode|unknown data organi[sz]ation", re.IGNORECASE
)


def truncated(name: str) -> ImageError:
    """Returns the error for data that ends early; `name` is the format's."""
    return ImageError("truncated", f"the {name} data ends before the image does: fetch the file again")


def corrupt(name: str, detail: str) -> ImageError:
    """Returns the error for data that breaks its format's rules; `name` is the format's."""
    return ImageError("not_an_image", f"corrupt {name}: {detail}")


def out_of_memory(name: str) -> ImageError:
    """Returns the error for an image too large for the memory; `name` is the format's."""
    return ImageError("too_large", f"decoding the {name} takes more memory than there is: shrink it")


def decoding_error(name: str, error: Exception) -> ImageError:
    """Returns the `ImageError` for an exception that a decoder raised; `name` is the format's."""
    if isinstance(error, MemoryError):
        return out_of_memory(name)
    text = " ".join(str(error).split()) or type(error).__name__
    if _TRUNCATED.search(text):
        return truncated(name)
    if _UNSUPPORTED.search(text):
        return ImageError("unsupported_format", f"an unusual {name}: {text}; convert it to PNG or JPEG")
    return corrupt(name, text)


def unpack(name: str, layout: str, data: bytes, offset: int) -> tuple[Any, ...]:
    """Like `struct.unpack_from`, but data that ends early raises an `ImageError`; `name` is the format's."""
    try:
        return struct.unpack_from(layout, data, offset)
    except (struct.error, OverflowError) as error:  # the latter from offsets of 64 bits
        raise truncated(name) from error
