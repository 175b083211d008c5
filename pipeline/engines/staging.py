"""Brings a module's function to workers on other machines."""

from __future__ import annotations

import dataclasses

from pipeline.engines.base import ModuleFunction
from pipeline.engines.conversion import stage_conversion
from pipeline.hub.staging import stage_module


def stage_function(function: ModuleFunction, location: str) -> ModuleFunction:
    """Copies a module to where workers can read it, and its conversion if its engine needs one.

    Args:
      function: whose engine was chosen and loaded here.
      location: a directory that this process can write and workers can read, such as `gs://bucket/temp`.

    Returns:
      The function with the paths of the copies, for the workers.

    Raises:
      UsageError: the location cannot be written.
    """
    path = stage_module(function.path, function.sha256, location, function.model_file)
    conversion = stage_conversion(function, location) if function.engine == "openvino" else None
    return dataclasses.replace(function, path=path, is_staged=True, conversion=conversion)
