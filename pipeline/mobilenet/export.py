"""Makes a module from a checkpoint of TF-Slim's MobileNetV2."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import InputError, UsageError
from pipeline.core.quiet import import_tensorflow
from pipeline.mobilenet.module import write_tf1_hub, write_tf2
from pipeline.mobilenet.network import CLASSIFIER_BIASES, Network, Variable, mobilenet_v2
from pipeline.savedmodel.publish import check_output, publish

Averages = Literal["auto", "raw", "ema"]
ModuleFormat = Literal["tf1_hub", "tf2"]

_SHADOW = "ExponentialMovingAverage"


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to make a module from, and where.

    Attributes:
      checkpoint: path of a TensorFlow checkpoint, with or without `.index`; or the prefix of its files.
      output: the module's directory, or an archive if it ends in `.tar.gz` or `.tgz`; must not exist.
      depth_multiplier: of the network; None to read it from the checkpoint's name.
      image_size: height and width in pixels; None to read it from the checkpoint's name.
      averages: which values to take where the checkpoint has exponential moving averages of its variables:
        `ema` the averages, `raw` the variables themselves, `auto` the averages if there are any.
      classification: keep the classifier, and add the signature `image_classification`.
      format: `tf1_hub` or `tf2`.
    """

    checkpoint: str
    output: str
    depth_multiplier: float | None = None
    image_size: int | None = None
    averages: Averages = "auto"
    classification: bool = False
    format: ModuleFormat = "tf1_hub"


@dataclass(frozen=True, slots=True)
class ExportedModule:
    """A module that was written.

    Attributes:
      path: the directory or archive.
      network: what it computes.
      averaged: how many of its variables were taken from moving averages.
      sha256: the module's digest, see `pipeline.savedmodel.digest.module_digest`.
    """

    path: Path
    network: Network
    averaged: int
    sha256: str


def export(config: ExportConfig) -> ExportedModule:
    """Makes a module from a checkpoint; it appears whole or not at all.

    Raises:
      UsageError: depth multiplier or image size are neither given nor in the checkpoint's name.
      InputError: the checkpoint cannot be read, or does not fit the network.
      ModuleError: there is no such network.
      OutputError: the output exists, or cannot be written.
    """
    output = check_output(config.output)
    import_tensorflow()
    checkpoint = _Checkpoint(config.checkpoint)
    network = checkpoint.network(config)
    values, averaged = checkpoint.values(network, config.averages)
    write = {"tf1_hub": write_tf1_hub, "tf2": write_tf2}[config.format]
    digest = publish(output, lambda directory: write(network, values, directory))
    return ExportedModule(output, network, averaged, digest)


class _Checkpoint:
    """A TensorFlow checkpoint: named arrays in files with a common prefix."""

    def __init__(self, path: str) -> None:
        """Opens a checkpoint.

        Raises:
          InputError: there is none, or it cannot be read.
        """
        import tensorflow as tf

        self.prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", os.path.expanduser(path))
        try:
            self._reader = tf.train.load_checkpoint(self.prefix)
            self.shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()
            self.dtypes: dict[str, Any] = self._reader.get_variable_to_dtype_map()
        except (tf.errors.OpError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"no checkpoint can be read from {self.prefix}: {reason}; "
                "give the common part of its files' names, up to .ckpt"
            ) from None

    def network(self, config: ExportConfig) -> Network:
        """Returns the network that the checkpoint is of.

        Raises:
          UsageError: neither flags nor name tell which.
          InputError: a classifier is asked for and the checkpoint has none.
          ModuleError: there is no such network.
        """
        name = re.search(r"mobilenet_v2_(\d+\.\d+)_(\d+)", Path(self.prefix).name)
        multiplier, size = config.depth_multiplier, config.image_size
        if name:
            multiplier = float(name[1]) if multiplier is None else multiplier
            size = int(name[2]) if size is None else size
        for flag, value in (("--depth_multiplier", multiplier), ("--image_size", size)):
            if value is None:
                raise UsageError(
                    f"the name of checkpoint {self.prefix} is not like mobilenet_v2_0.5_160.ckpt, and does not tell "
                    f"its network: give {flag}"
                )
        assert multiplier is not None
        assert size is not None
        network = mobilenet_v2(multiplier, size)
        if not config.classification:
            return network
        if CLASSIFIER_BIASES not in self.shapes:
            raise InputError(
                f"checkpoint {self.prefix} has no classifier ({CLASSIFIER_BIASES}): leave --classification out"
            )
        return network.with_classifier(self.shapes[CLASSIFIER_BIASES][0])

    def values(self, network: Network, averages: Averages) -> tuple[dict[str, npt.NDArray[np.float32]], int]:
        """Reads the network's variables.

        Returns:
          Their values by name, and how many of them are moving averages.

        Raises:
          InputError: a variable is missing, or not as the network needs it.
        """
        variables = list(network.variables())
        sources = {variable.name: variable.name for variable in variables}
        shadows = {v.name: f"{v.name}/{_SHADOW}" for v in variables if f"{v.name}/{_SHADOW}" in self.shapes}
        if averages == "ema" and not shadows:
            raise InputError(
                f"checkpoint {self.prefix} has no moving averages, which are called VARIABLE/{_SHADOW}: "
                "leave --averages=ema out"
            )
        if shadows and averages != "raw":
            # Averages of some weights and last values of others are no network that was ever evaluated. Statistics
            # of batch norm are averages already, and training may leave them without a second one.
            sources.update({v.name: f"{v.name}/{_SHADOW}" for v in variables if v.trainable or v.name in shadows})
        self._check(network, variables, sources)
        values = {name: self._reader.get_tensor(source) for name, source in sources.items()}
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise InputError(
                    f"variable {sources[name]} of checkpoint {self.prefix} is not finite: its training diverged; "
                    "take another checkpoint"
                )
        return values, sum(name != source for name, source in sources.items())

    def _check(self, network: Network, variables: list[Variable], sources: Mapping[str, str]) -> None:
        """Raises `InputError` where a variable is missing or has another shape or dtype."""
        missing = [sources[v.name] for v in variables if sources[v.name] not in self.shapes]
        if missing:
            raise InputError(
                f"checkpoint {self.prefix} lacks {_listed(missing)}; a MobileNetV2 of TF-Slim has all "
                f"{len(variables)} variables"
                + ("; --averages=raw does without averages" if missing[0].endswith(_SHADOW) else "")
            )
        wrong = [
            f"{source} (found {list(self.shapes[source])}, expected {list(variable.shape)})"
            for variable in variables
            if tuple(self.shapes[source := sources[variable.name]]) != variable.shape
        ]
        if wrong:
            raise InputError(
                f"checkpoint {self.prefix} does not fit {network.name}: wrong shape of {_listed(wrong)}; "
                "is --depth_multiplier right?"
            )
        for source in sources.values():
            if (dtype := self.dtypes[source].name) != "float32":
                raise InputError(f"variable {source} of checkpoint {self.prefix} is {dtype}, expected float32")


def _listed(names: list[str]) -> str:
    """Names the first few of many things."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
