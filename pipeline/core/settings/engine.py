"""The flags about the computation of the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.registry import load_registry
from pipeline.core.settings.flags import check_choices, flag

Precision = Literal["float32", "bfloat16"]
Normalization = Literal["none", "l2"]

# By path: this folder imports no other one.
_ENGINES = load_registry("pipeline.engines.registry:ENGINES").names


@dataclass(frozen=True)
class EngineConfig:
    """The computation of the vectors."""

    engine: str = flag(
        "inference engine; auto: tensorflow if it sees a GPU, else openvino if its vectors match tensorflow's to "
        "1e-4, else tensorflow. Default: auto",
        default="auto",
        choices=("auto", *_ENGINES),
    )
    precision: Precision = flag(
        "precision of the inference; bfloat16 (openvino only) is faster on CPUs that support it, and changes the "
        "vectors by some percent. Default: float32",
        default="float32",
        choices=get_args(Precision),
    )
    batch_size: int | None = flag(
        "images per batch: on a GPU, per call of the network; on a CPU, per group of one thread. Default: chosen by "
        "the engine",
        default=None,
        parse=int,
        metavar="N",
    )
    normalize: Normalization = flag(
        "l2: scale each vector to length 1. Default: none", default="none", choices=get_args(Normalization)
    )

    def __post_init__(self) -> None:
        """Refuses a batch size out of range, and a precision that the engine does not support."""
        check_choices(self)
        if self.precision != "float32" and self.engine == "tensorflow":
            raise UsageError(
                f"--precision={self.precision} is not for --engine=tensorflow, which computes in float32; leave one out"
            )
        if self.batch_size is not None and not 1 <= self.batch_size <= 4096:
            raise UsageError(f"--batch_size={self.batch_size} is not a batch size; it must be between 1 and 4096")
