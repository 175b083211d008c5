"""The flags about the module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.settings.flags import check_choices, flag, parse_image_size

Pooling = Literal["mean", "cls", "flatten"]


@dataclass(frozen=True)
class ModuleConfig:
    """The network that turns an image into a vector."""

    module: str = flag(
        "local directory, local .tar.gz, https://...tar.gz, gs:// directory or tarball, a published name or the "
        "address of its page, kaggle:OWNER/MODEL/FRAMEWORK/VARIATION, an .onnx or OpenVINO .xml file, or "
        "untrained:mobilenet_v2_050_160. Required",
        metavar="HANDLE",
    )
    module_sha256: str | None = flag("refuse the module unless its digest is this", default=None, metavar="DIGEST")
    signature: str | None = flag(
        "signature to call. Default: the first that exists of image_feature_vector, default, serving_default",
        default=None,
        metavar="NAME",
    )
    output_key: str | None = flag(
        "output of the signature to write. Default: default, or the only output with a vector for each image",
        default=None,
        metavar="NAME",
    )
    image_size: tuple[int, int] | None = flag(
        "height and width in pixels, for a module that does not declare its input size",
        default=None,
        parse=parse_image_size,
        metavar="H,W",
    )
    allow_unsafe_module: bool = flag(
        "accept a module whose graphs have operations that reach files, processes or the network. Default: refuse it",
        default=False,
    )
    pooling: Pooling | None = flag(
        "for an output with more axes than [images, features]: mean over all positions, cls (the first token) or "
        "flatten. Default: refuse such an output unless its other axes have length 1",
        default=None,
        choices=get_args(Pooling),
    )

    def __post_init__(self) -> None:
        """Refuses an empty handle, an unknown pooling and a digest that cannot be one."""
        if not self.module:
            raise UsageError(
                "no module: --module=HANDLE is required; to try things out: untrained:mobilenet_v2_050_160"
            )
        if self.pooling is not None:
            check_choices(self)
        if self.module_sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.module_sha256):
            raise UsageError(f"--module_sha256={self.module_sha256!r} is not a SHA-256 digest of 64 hexadecimal digits")
