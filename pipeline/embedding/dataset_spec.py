"""The spec of a data set. A data set accepts vectors of one spec only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from pipeline.core.errors import OutputError
from pipeline.core.json import OMITTED_IF_NONE

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
    """

    height: int
    width: int
    decode: str
    exif_orientation: bool
    color: str = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: str = "bilinear, half-pixel centres, no antialias"


BY_MODULE = Preprocessing(height=0, width=0, decode="module", exif_orientation=False, resize="module")
"""The preprocessing of a module that takes encoded images: it decodes and resizes them itself."""


@dataclass(frozen=True)
class Certificate:
    """How near the vectors of a data set are to those of the framework that the module is made for.

    The process that started the data set measured this on a few probe images, from their encoded bytes to their
    vectors. It is a record, which other machines need not reproduce to the bit.

    Attributes:
      reference: name and version of the framework, such as `tensorflow 2.21.0`; None if there was none.
      difference: the largest relative L2 difference of a probe image's vector from the framework's; None without one.
      probe_sha256: SHA-256 of the vectors of all probe images, little-endian float32, before `--normalize`.
    """

    reference: str | None
    difference: float | None
    probe_sha256: str


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
      parity: largest relative L2 difference of the engine's vectors, over a few images, from those of the module's own
        framework; None for that framework itself, or if there is none. A measurement that may differ between machines.
      pooling: what made one vector of an output with more axes: `mean`, `cls` or `flatten`; None for an output of
        vectors.
      dtype: data type of a vector's values.
      certificate: the comparison with the framework of the module. It does not belong to the kind of the vectors. None
        in older data sets, and for a custom engine.
      format_version: version of the data set format.
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
    pooling: str | None = field(default=None, metadata=OMITTED_IF_NONE)
    certificate: Certificate | None = field(default=None, metadata=OMITTED_IF_NONE)
    format_version: int = FORMAT_VERSION


def differing_fields(old: Spec, new: Spec) -> list[str]:
    """Returns the differences that make the vectors of two specs incomparable, as `field: old, now new`."""
    ours, theirs = ({**dataclasses.asdict(spec), **dataclasses.asdict(spec.preprocessing)} for spec in (old, new))
    vectors = ("signature", "output_key", "pooling", "dimension", "normalization", "engine", "precision", "dtype")
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
