"""The spec of a data set. A data set accepts vectors of one spec only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.core.errors import OutputError

FORMAT_VERSION = 2
"""Version of the data set format."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing from encoded bytes to the network's input.

    Attributes:
      height: height of the input in pixels.
      width: width of the input in pixels.
      decode: `exact` or `fast`.
      exif_orientation: whether images were rotated by their EXIF orientation.
      color: order of the channels.
      value_range: range of the input's values.
      resize: method of the resize.
      icc: whether colour profiles were ignored (`ignore`), or colours converted to sRGB (`srgb`).
    """

    height: int
    width: int
    decode: str
    exif_orientation: bool
    color: str = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: str = "bilinear, half-pixel centres, no antialias"
    icc: str = "ignore"


@dataclass(frozen=True)
class Spec:
    """The origin and format of every vector in a data set.

    Attributes:
      module: the module's handle.
      module_sha256: the module's digest.
      signature: the signature of the module.
      output_key: the output of the signature.
      dimension: length of a vector.
      preprocessing: the preprocessing from encoded bytes to the network's input.
      normalization: `none` or `l2`.
      engine: name of the engine that computed the vectors, such as `openvino`.
      precision: precision of the computation, such as `float32`.
      parity: largest relative L2 difference of the engine's vectors from TensorFlow's over a few images; None for
        TensorFlow itself. A measurement that may differ between machines.
      dtype: data type of a vector's values.
      format_version: version of the data set format.
      decoders: the installed image decoders and their versions when the data set was begun; empty if unknown. Later
        runs may use others: their manifests name them.
    """

    module: str
    module_sha256: str
    signature: str
    output_key: str
    dimension: int
    preprocessing: Preprocessing
    normalization: str
    engine: str
    precision: str
    parity: float | None
    dtype: str = "float32"
    format_version: int = FORMAT_VERSION
    decoders: Mapping[str, str] = field(default_factory=dict)


def differing_fields(old: Spec, new: Spec) -> list[str]:
    """Returns the differences that make the vectors of two specs incomparable, as `field: old, now new`."""
    ours, theirs = ({**dataclasses.asdict(spec), **dataclasses.asdict(spec.preprocessing)} for spec in (old, new))
    vectors = ("signature", "output_key", "dimension", "normalization", "engine", "precision", "dtype")
    preprocessing = [item.name for item in dataclasses.fields(Preprocessing)]
    return [
        f"{name}: {ours[name]}, now {theirs[name]}"
        for name in ("module_sha256", *vectors, *preprocessing)
        if ours[name] != theirs[name]
    ]


def check_same_space(output: str, old: Spec, new: Spec) -> None:
    """Checks that the vectors of two specs can be compared.

    Args:
      output: directory of the data set.
      old: the spec of the data set.
      new: the spec of the vectors to add.

    Raises:
      OutputError: the vectors cannot be compared.
    """
    differences = differing_fields(old, new)
    if differences:
        raise OutputError(
            f"--output={output} holds vectors of another kind ({'; '.join(differences)}); name another "
            "directory, or replace the data set with --overwrite"
        )
