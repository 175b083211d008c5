"""The spec of a data set. A data set accepts vectors of one spec only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.core.errors import OutputError
from pipeline.core.json import OMITTED_IF_NONE
from pipeline.core.settings.preprocess import Interpolation, ResizeMode
from pipeline.images.transform import ImageTransform, Margins, Triple

if TYPE_CHECKING:
    from pipeline.images.decoder import ImageDecoder

FORMAT_VERSION = 3
"""Version of the data set format."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing from encoded bytes to the network's input.

    Older specs lack the fields from `resize_mode` on; their defaults are what was done then. An older program, which
    ignores these fields, sees another transform in `color`, `value_range` or `resize`.

    Attributes:
      height: height of the input in pixels.
      width: width of the input in pixels.
      decode: `exact` or `fast`.
      exif_orientation: whether images were rotated by their EXIF orientation.
      color: order of the channels.
      value_range: range of the input's values, over all channels.
      resize: the resize in words.
      resize_mode: as all following fields, see `pipeline.images.transform.ImageTransform`, whose `resize` this is.
      crop_fraction: see there.
      interpolation: see there.
      antialias: see there.
      input_range: see there.
      mean: see there.
      std: see there.
      margins: see there.
      fill: see there.
      icc: whether colour profiles were ignored (`ignore`), or colours converted to sRGB (`srgb`).
    """

    height: int
    width: int
    decode: str
    exif_orientation: bool
    color: str = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: str = "bilinear, half-pixel centres, no antialias"
    resize_mode: ResizeMode = "squash"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    margins: Margins = "floor"
    fill: tuple[int, int, int] = (0, 0, 0)
    icc: str = "ignore"

    @classmethod
    def of(cls, decoder: ImageDecoder) -> Preprocessing:
        """Returns the preprocessing that a decoder does."""
        transform = decoder.transform
        ends = [
            (value - mean) / std
            for mean, std in zip(transform.mean, transform.std, strict=True)
            for value in transform.input_range
        ]
        antialias = "antialias" if transform.antialias else "no antialias"
        kernel = f"{transform.interpolation}, half-pixel centres, {antialias}"
        is_plain = transform.resize == "squash" and transform.crop_fraction == 1
        return cls(
            height=decoder.height,
            width=decoder.width,
            decode=decoder.decode,
            exif_orientation=decoder.exif_orientation,
            color=transform.channels.upper(),
            value_range=(min(ends), max(ends)),
            resize=kernel if is_plain else f"{transform.resize} {transform.crop_fraction:g}, {kernel}",
            resize_mode=transform.resize,
            crop_fraction=transform.crop_fraction,
            interpolation=transform.interpolation,
            antialias=transform.antialias,
            input_range=transform.input_range,
            mean=transform.mean,
            std=transform.std,
            margins=transform.margins,
            fill=transform.fill,
            icc=decoder.icc,
        )

    @property
    def transform(self) -> ImageTransform:
        """The transform from decoded pixels to the input."""
        return ImageTransform(
            resize=self.resize_mode,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            antialias=self.antialias,
            channels="bgr" if self.color == "BGR" else "rgb",
            input_range=self.input_range,
            mean=self.mean,
            std=self.std,
            margins=self.margins,
            fill=self.fill,
        )


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
    pooling: str | None = field(default=None, metadata=OMITTED_IF_NONE)
    certificate: Certificate | None = field(default=None, metadata=OMITTED_IF_NONE)
    format_version: int = FORMAT_VERSION
    decoders: Mapping[str, str] = field(default_factory=dict)


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
