"""The kinds of inputs, engines and output formats that a flag can name, one line each.

A new kind needs one file with its implementation and one line here. The file is imported on first use of the kind:
a command loads only the kinds that it needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError


@dataclass(frozen=True)
class Kinds:
    """Implementations by name.

    Attributes:
      flag: the flag whose values are the names.
      paths: the import path of each implementation: `module:attribute`.
    """

    flag: str
    paths: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which automatic choices try them."""
        return tuple(self.paths)

    def load(self, name: str) -> Any:
        """Returns the implementation of a name.

        Raises:
          UsageError: no kind has this name.
        """
        if name not in self.paths:
            raise UsageError(f"--{self.flag}={name!r} is unknown; expected one of {', '.join(self.paths)}")
        module, _, attribute = self.paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


INPUT_KINDS = Kinds(
    "input_format",
    {
        "images": "pipeline.inputs.image_files:ImageFiles",
        "tfrecord": "pipeline.inputs.tfrecord_files:TFRecordFiles",
        "list": "pipeline.inputs.list_files:ListFiles",
    },
)
"""Classes without arguments that implement `pipeline.inputs.base.InputKind`."""

ENGINES = Kinds(
    "engine",
    {
        "openvino": "pipeline.engines.openvino:OpenVINOEngine",
        "tensorflow": "pipeline.engines.tensorflow:TensorFlowEngine",
    },
)
"""Functions from a `pipeline.engines.base.ModuleFunction` to a `pipeline.engines.base.Engine`."""

SINKS = Kinds(
    "output_format",
    {
        "tfrecord": "pipeline.dataset.sinks.tfrecord:TFRecordSink",
        "parquet": "pipeline.dataset.sinks.parquet:ParquetSink",
    },
)
"""Classes without arguments that implement `pipeline.dataset.sinks.base.Sink`."""
