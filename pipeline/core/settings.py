"""The settings of a run: one frozen dataclass for each concern.

Each field of these classes is a flag of the same name; its metadata holds the help text and the function that parses
a value. Each flag is declared once and has one meaning in Python, in a configuration file and on the command line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.registry import load_registry

CorruptPolicy = Literal["skip", "fail"]
Compression = Literal["none", "gzip"]
Precision = Literal["float32", "bfloat16"]
DecodeMode = Literal["exact", "fast"]
Normalization = Literal["none", "l2"]

# By path: this folder imports no other one.
_INPUT_KINDS = load_registry("pipeline.inputs.registry:INPUT_KINDS").names
_ENGINES = load_registry("pipeline.engines.registry:ENGINES").names
_OUTPUT_FORMATS = load_registry("pipeline.dataset.sinks.registry:SINKS").names

OUTPUT_FEATURES = ("key", "embedding")
"""Names of the features that every output record has, besides the copied ones."""

TIMESTAMP_COLUMN = "event_timestamp"
"""Name of an additional column of Parquet files."""

_BYTE_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_BYTE_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(text: str) -> int:
    """Parses a number of bytes, such as `500000`, `64MiB` or `2GB`.

    Raises:
      UsageError: `text` is not a positive number with one of these units.
    """
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", text)
    unit = _BYTE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise UsageError(f"{text!r} is not a size in bytes; write a number with or without a unit, like 64MiB")
    return int(float(match[1]) * unit)


def parse_image_size(text: str) -> tuple[int, int]:
    """Parses (height, width) in pixels from text such as `160,160`.

    Raises:
      UsageError: `text` is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"image size {text!r} is not a height and a width in pixels; write it like 160,160")
    return int(match[1]), int(match[2])


def parse_names(text: str) -> tuple[str, ...]:
    """Parses a comma-separated list of names; drops repeats."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _flag(
    text: str,
    *,
    default: Any = dataclasses.MISSING,
    parse: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
) -> Any:
    """Declares a field that is a flag; with `repeat`, repeated uses form a tuple."""
    flag = {"help": text, "parse": parse, "choices": choices, "metavar": metavar, "repeat": repeat}
    return field(default=default, metadata=flag)


def _check_choices(config: Any) -> None:
    """Refuses a value that the command line would refuse too.

    Raises:
      UsageError: a field with choices has another value.
    """
    for item in dataclasses.fields(config):
        value, choices = getattr(config, item.name), item.metadata["choices"]
        if choices and value not in choices:
            raise UsageError(f"--{item.name}={value!r} is not one of its choices: {', '.join(choices)}")


@dataclass(frozen=True)
class InputConfig:
    """The inputs, and the features to read from them."""

    input: tuple[str, ...] = _flag(
        "file, directory (read recursively) or glob; may be repeated; local or any scheme that Beam reads "
        "(gs://...). Required",
        repeat=True,
        metavar="PATTERN",
    )
    input_format: str = _flag(
        "format of the inputs: tfrecord, images, list (a text file with one image path or URI per line) or auto "
        "(by the file name). Default: auto",
        default="auto",
        choices=("auto", *_INPUT_KINDS),
    )
    image_feature: str = _flag(
        "TFRecord: the feature that holds the encoded image. Default: image/encoded",
        default="image/encoded",
        metavar="NAME",
    )
    key_feature: str | None = _flag(
        "TFRecord: the feature that names the image. Default: none, the key is path@offset",
        default=None,
        metavar="NAME",
    )
    passthrough: tuple[str, ...] = _flag(
        "TFRecord: features copied to the output, a,b or * for all but the image. Default: none",
        default=(),
        parse=parse_names,
        metavar="NAMES",
    )

    on_corrupt: CorruptPolicy = _flag(
        "TFRecord: skip reports each damaged range as a failure and continues after it; fail ends the run. "
        "Default: skip",
        default="skip",
        choices=get_args(CorruptPolicy),
    )

    def __post_init__(self) -> None:
        """Refuses an empty input and features that would collide with the output's own."""
        for name in ("input", "passthrough"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name}='{getattr(self, name)}' is one string; expected a tuple of strings")
        if not self.input or not all(self.input):
            raise UsageError("no input: --input=FILE, DIRECTORY or GLOB is required")
        _check_choices(self)
        if "*" in self.passthrough and len(self.passthrough) > 1:
            raise UsageError(f"--passthrough={','.join(self.passthrough)}: '*' already stands for every feature")
        for name in self.passthrough:
            if name in OUTPUT_FEATURES:
                raise UsageError(f"--passthrough names '{name}', which every output record already has; leave it out")
            if name == self.image_feature:
                raise UsageError(f"--passthrough names '{name}', the image itself, which is never copied; leave it out")


@dataclass(frozen=True)
class ModuleConfig:
    """The network that turns an image into a vector."""

    module: str = _flag(
        "local directory, local .tar.gz, https://...tar.gz, gs:// directory or tarball, or "
        "untrained:mobilenet_v2_050_160. Required",
        metavar="HANDLE",
    )
    module_sha256: str | None = _flag("refuse the module unless its digest is this", default=None, metavar="DIGEST")
    signature: str | None = _flag(
        "signature to call. Default: the first that exists of image_feature_vector, default, serving_default",
        default=None,
        metavar="NAME",
    )
    output_key: str | None = _flag(
        "output of the signature to write. Default: default, or the only output", default=None, metavar="NAME"
    )
    image_size: tuple[int, int] | None = _flag(
        "height and width in pixels, for a module that does not declare its input size",
        default=None,
        parse=parse_image_size,
        metavar="H,W",
    )
    allow_unsafe_module: bool = _flag(
        "accept a module whose graphs have operations that reach files, processes or the network. Default: refuse it",
        default=False,
    )

    def __post_init__(self) -> None:
        """Refuses an empty handle and a digest that cannot be one."""
        if not self.module:
            raise UsageError(
                "no module: --module=HANDLE is required; to try things out: untrained:mobilenet_v2_050_160"
            )
        if self.module_sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.module_sha256):
            raise UsageError(f"--module_sha256={self.module_sha256!r} is not a SHA-256 digest of 64 hexadecimal digits")


@dataclass(frozen=True)
class DecodeConfig:
    """The decoding of images to pixels."""

    decode: DecodeMode = _flag(
        "exact: the same pixels as TensorFlow's decoder and resize; fast: JPEG decoded at reduced scale, which changes "
        "the vectors. Default: exact",
        default="exact",
        choices=get_args(DecodeMode),
    )
    exif_orientation: bool = _flag("rotate images by their EXIF orientation. Default: ignore it", default=False)
    max_pixels: int = _flag(
        "an image whose header declares more pixels is a failure. Default: 100000000",
        default=100_000_000,
        parse=int,
        metavar="N",
    )
    max_image_bytes: int = _flag(
        "an encoded image of more bytes is a failure. Default: 64MiB",
        default=64 << 20,
        parse=parse_bytes,
        metavar="SIZE",
    )

    def __post_init__(self) -> None:
        """Refuses limits below 1, which no image can meet."""
        _check_choices(self)
        for name in ("max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}={getattr(self, name)} leaves no image; it must be at least 1")


@dataclass(frozen=True)
class EngineConfig:
    """The computation of the vectors."""

    engine: str = _flag(
        "inference engine; auto: tensorflow if it sees a GPU, else openvino if its vectors match tensorflow's to "
        "1e-4, else tensorflow. Default: auto",
        default="auto",
        choices=("auto", *_ENGINES),
    )
    precision: Precision = _flag(
        "precision of the inference; bfloat16 (openvino only) is faster on CPUs that support it, and changes the "
        "vectors by some percent. Default: float32",
        default="float32",
        choices=get_args(Precision),
    )
    batch_size: int | None = _flag(
        "images per batch: on a GPU, per call of the network; on a CPU, per group of one thread. Default: chosen by "
        "the engine",
        default=None,
        parse=int,
        metavar="N",
    )
    normalize: Normalization = _flag(
        "l2: scale each vector to length 1. Default: none", default="none", choices=get_args(Normalization)
    )

    def __post_init__(self) -> None:
        """Refuses a batch size out of range, and a precision that the engine does not support."""
        _check_choices(self)
        if self.precision != "float32" and self.engine == "tensorflow":
            raise UsageError(
                f"--precision={self.precision} is not for --engine=tensorflow, which computes in float32; leave one out"
            )
        if self.batch_size is not None and not 1 <= self.batch_size <= 4096:
            raise UsageError(f"--batch_size={self.batch_size} is not a batch size; it must be between 1 and 4096")


@dataclass(frozen=True)
class OutputConfig:
    """The output data set."""

    output: str = _flag("directory of the output data set, local or gs://. Required", metavar="DIR")
    output_format: tuple[str, ...] = _flag(
        "tfrecord, parquet, or both: tfrecord,parquet. Default: tfrecord",
        default=("tfrecord",),
        parse=parse_names,
        metavar="FORMATS",
    )
    compression: Compression = _flag(
        "compression of the TFRecord files. Default: none", default="none", choices=get_args(Compression)
    )

    def __post_init__(self) -> None:
        """Refuses an empty directory and unknown formats."""
        if not self.output:
            raise UsageError("no output: --output=DIRECTORY is required")
        unknown = [name for name in self.output_format if name not in _OUTPUT_FORMATS]
        if unknown or not self.output_format:
            raise UsageError(
                f"--output_format={','.join(self.output_format)}: expected some of {','.join(_OUTPUT_FORMATS)}"
            )
        _check_choices(self)


@dataclass(frozen=True)
class ExecutionConfig:
    """The execution of the run: waves, resuming, limits and logging."""

    overwrite: bool = _flag(
        "remove the data set and write a new one; removes only files that its spec and manifests name. "
        "Default: continue where the last run stopped",
        default=False,
    )
    max_failure_rate: float = _flag(
        "share of failed records above which the exit code is 3. Default: 0.1",
        default=0.1,
        parse=float,
        metavar="RATE",
    )
    wave_bytes: int | None = _flag(
        "input bytes per wave, which groups whole files and commits them together; at most a million files. Default: "
        "2GiB on the DirectRunner, 256GiB elsewhere",
        default=None,
        parse=parse_bytes,
        metavar="SIZE",
    )
    retry_failed: bool = _flag("also retry the records that failed in earlier runs", default=False)
    verbose: bool = _flag("log the duration of each start-up step", default=False)
    dry_run: bool = _flag(
        "plan, load the module, embed a small sample, and print the plan with its estimated time, memory and cost; "
        "write nothing",
        default=False,
    )
    workers: int | None = _flag(
        "--dry_run: number of workers that share the work; a worker is one vCPU (one core). Default: the cores of this "
        "machine",
        default=None,
        parse=int,
        metavar="N",
    )
    price_per_vcpu_hour: float | None = _flag(
        "--dry_run: price of one vCPU for one hour, in any currency. Default: none, no cost is printed",
        default=None,
        parse=float,
        metavar="PRICE",
    )
    steal_lock: bool = _flag(
        "write even if another run seems to be writing to the same output; that run then commits nothing more",
        default=False,
    )

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and settings of a dry run without one."""
        if self.wave_bytes is not None and self.wave_bytes < 1:
            raise UsageError(f"--wave_bytes={self.wave_bytes} holds no input; it must be at least 1")
        if not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max_failure_rate={self.max_failure_rate} is not a rate; it must be between 0 and 1")
        for name in ("workers", "price_per_vcpu_hour"):
            value = getattr(self, name)
            if value is None:
                continue
            if not 0 < value < math.inf:
                raise UsageError(f"--{name}={value} is out of range; it must be a number above 0")
            if not self.dry_run:
                raise UsageError(f"--{name}={value} has an effect only with --dry_run; add --dry_run or leave it out")
