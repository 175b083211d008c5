"""The flags about inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.registry import load_registry
from pipeline.core.settings.flags import check_choices, flag, parse_names
from pipeline.core.settings.output import OUTPUT_FEATURES

CorruptPolicy = Literal["skip", "fail"]

# By path: this folder imports no other one.
_INPUT_KINDS = load_registry("pipeline.inputs.registry:INPUT_KINDS").names


@dataclass(frozen=True)
class InputConfig:
    """The inputs, and the features to read from them."""

    input: tuple[str, ...] = flag(
        "file, directory (read recursively) or glob; may be repeated; local or any scheme that Beam reads "
        "(gs://...). Required",
        repeat=True,
        metavar="PATTERN",
    )
    input_format: str = flag(
        "format of the inputs: tfrecord, images, webdataset (tar), parquet, csv (a table of image paths), list (a text "
        "file with one image path or address per line) or auto (by the file name; of a file that is named, also by its "
        "first bytes). Default: auto",
        default="auto",
        choices=("auto", *_INPUT_KINDS),
    )
    image_feature: str | None = flag(
        "what holds the encoded image. TFRecord: a feature, image/encoded by default; Parquet: a column of images or "
        "paths, by default the one that holds images; CSV: a column, by default the one that holds paths of images; "
        "tar: the extension of a member, by default that of an image format",
        default=None,
        metavar="NAME",
    )
    key_feature: str | None = flag(
        "what names the image: a feature (TFRecord), a column (Parquet, CSV), a member or a field of one such as "
        "json:id (tar). Default: none, the key is path@offset, path@row or path/sample",
        default=None,
        metavar="NAME",
    )
    passthrough: tuple[str, ...] = flag(
        "features, columns or members copied to the output, a,b or * for all but the image. Default: none",
        default=(),
        parse=parse_names,
        metavar="NAMES",
    )

    on_corrupt: CorruptPolicy = flag(
        "damaged TFRecord, tar and Parquet files: skip reports each damaged range as a failure and continues after it; "
        "fail ends the run. "
        "Default: skip",
        default="skip",
        choices=get_args(CorruptPolicy),
    )

    fetch_concurrency: int = flag(
        "web addresses in lists, CSV and Parquet: images that each worker process fetches at the same time. "
        "Default: 64",
        default=64,
        parse=int,
        metavar="N",
    )
    fetch_timeout: float = flag(
        "seconds to fetch one image from a web address, with redirects and retries. Default: 30",
        default=30.0,
        parse=float,
        metavar="SECONDS",
    )
    allow_private_addresses: bool = flag(
        "also fetch from web addresses of private networks and of the worker itself. Default: refuse them, as a list "
        "may be somebody else's",
        default=False,
    )

    def __post_init__(self) -> None:
        """Refuses an empty input and features that would collide with the output's own.

        Raises:
          UsageError: a value cannot be honoured.
        """
        for name in ("input", "passthrough"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name}='{getattr(self, name)}' is one string; expected a tuple of strings")
        if not self.input or not all(self.input):
            raise UsageError("no input: --input=FILE, DIRECTORY or GLOB is required")
        check_choices(self)
        for name, largest in (("fetch_concurrency", 4096), ("fetch_timeout", 3600)):
            if not 0 < getattr(self, name) <= largest:
                raise UsageError(f"--{name}={getattr(self, name)} is out of range; it must be above 0, up to {largest}")
        if "*" in self.passthrough and len(self.passthrough) > 1:
            raise UsageError(f"--passthrough={','.join(self.passthrough)}: '*' already stands for every feature")
        for name in self.passthrough:
            if name in OUTPUT_FEATURES:
                raise UsageError(f"--passthrough names '{name}', which every output record already has; leave it out")
            if name == (self.image_feature or "image/encoded"):
                raise UsageError(f"--passthrough names '{name}', the image itself, which is never copied; leave it out")
