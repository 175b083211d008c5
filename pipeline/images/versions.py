"""Which image decoders are installed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from pipeline.core.versions import installed_versions

DECODER_PACKAGES = ("simplejpeg", "pillow", "opencv-python-headless", "pillow-heif", "tifffile", "imagecodecs")
"""The packages that decode images or convert their pixels; some are optional."""


@functools.cache
def decoder_versions() -> Mapping[str, str]:
    """Returns the versions of the installed decoders, by package."""
    return installed_versions(DECODER_PACKAGES)
