"""The flags about the output data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.registry import load_registry
from pipeline.core.settings.flags import check_choices, flag, parse_names
from pipeline.core.suggestions import describe_unknown

Compression = Literal["none", "gzip"]

OUTPUT_FEATURES = ("key", "embedding")
"""Names of the features that every output record has, besides the copied ones."""

TIMESTAMP_COLUMN = "event_timestamp"
"""Name of an additional column of Parquet files."""

# By path: this folder imports no other one.
_OUTPUT_FORMATS = load_registry("pipeline.dataset.sinks.registry:SINKS").names


@dataclass(frozen=True)
class OutputConfig:
    """The output data set."""

    output: str = flag("directory of the output data set, local or gs://. Required", metavar="DIR")
    output_format: tuple[str, ...] = flag(
        "tfrecord, parquet, or both: tfrecord,parquet. Default: tfrecord",
        default=("tfrecord",),
        parse=parse_names,
        metavar="FORMATS",
    )
    compression: Compression = flag(
        "compression of the TFRecord files. Default: none", default="none", choices=get_args(Compression)
    )

    def __post_init__(self) -> None:
        """Refuses an empty directory and unknown formats."""
        if not self.output:
            raise UsageError("no output: --output=DIRECTORY is required")
        unknown = [name for name in self.output_format if name not in _OUTPUT_FORMATS]
        if unknown:
            raise UsageError(
                f"--output_format={','.join(self.output_format)}: {describe_unknown(unknown[0], _OUTPUT_FORMATS)}"
            )
        if not self.output_format:
            raise UsageError(f"--output_format is empty; expected some of {','.join(_OUTPUT_FORMATS)}")
        check_choices(self)
