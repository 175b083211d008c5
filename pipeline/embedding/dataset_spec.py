"""The spec of a data set: what every vector in it is, so that only vectors that can be compared come together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pipeline.core.errors import OutputError

FORMAT_VERSION = 1
"""Version of the data set's own format."""


@dataclass(frozen=True)
class Preprocessing:
    """How encoded bytes became the network's input.

    Attributes:
      height: of the input, in pixels.
      width: of the input, in pixels.
      decode: `exact` or `fast`.
      exif_orientation: whether images were turned as their EXIF orientation says.
      color: order of the channels.
      value_range: of the input's values.
      resize: method of the resize.
    """

    height: int
    width: int
    decode: str
    exif_orientation: bool
    color: str = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: str = "bilinear, half-pixel centres, no antialias"


@dataclass(frozen=True)
class Spec:
    """What every vector of a data set is; a data set holds vectors of one spec only.

    Attributes:
      module: the module's handle.
      module_sha256: the module's digest.
      signature: the function of the module that was called.
      output_key: the output of that function that was kept.
      dimension: length of a vector.
      preprocessing: how encoded bytes became the network's input.
      normalization: `none` or `l2`.
      engine: what computed the vectors, such as `openvino`.
      precision: of the computation, such as `float32`.
      parity: relative L2 difference of the engine's vectors from TensorFlow's on a few images, the
        largest; None for TensorFlow itself. A measurement, which may differ from machine to machine.
      dtype: data type of a vector's values.
      format_version: version of the data set's own format.
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


def differing_fields(old: Spec, new: Spec) -> list[str]:
    """Returns what makes the vectors of two specs different things, as `field: old, now new`."""
    ours, theirs = ({**dataclasses.asdict(spec), **dataclasses.asdict(spec.preprocessing)} for spec in (old, new))
    vectors = ("signature", "output_key", "dimension", "normalization", "engine", "precision", "dtype")
    preprocessing = [item.name for item in dataclasses.fields(Preprocessing)]
    return [
        f"{name}: {ours[name]}, now {theirs[name]}"
        for name in ("module_sha256", *vectors, *preprocessing)
        if ours[name] != theirs[name]
    ]


def check_same_space(output: str, old: Spec, new: Spec) -> None:
    """Makes sure that two specs are of vectors that can be compared.

    Args:
      output: directory of the data set.
      old: of the data set.
      new: of what is to be added to it.

    Raises:
      OutputError: they are not.
    """
    differences = differing_fields(old, new)
    if differences:
        raise OutputError(
            f"--output={output} holds vectors of another kind ({'; '.join(differences)}); name another "
            "directory, or start it anew with --overwrite"
        )
