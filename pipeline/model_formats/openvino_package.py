"""The package openvino: its import without telemetry, and its errors."""

from __future__ import annotations

import re
import sys
from typing import Any

from pipeline.core.errors import ModuleError

ADVICE = "; use --engine=tensorflow"
"""The end of an `OpenVINOError`, if TensorFlow computes the module's format, too."""

_TELEMETRY = "openvino_telemetry"


class OpenVINOError(ModuleError):
    """OpenVINO cannot compute a module; the module may be valid."""


def import_openvino() -> Any:
    """Returns the package openvino, imported without its telemetry.

    On import, OpenVINO reports to its vendor and stores a client id in `~/intel`, both by the optional package
    `openvino_telemetry`.
    """
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        import openvino

        return openvino
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
    return openvino


def openvino_errors(openvino: Any) -> tuple[type[Exception], ...]:
    """Returns the exceptions that OpenVINO raises for an unsupported model; they have no common base class."""
    frontend = openvino.frontend
    return (
        RuntimeError,
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )


def one_line(error: Exception) -> str:
    """Returns the text of an OpenVINO exception, as one line of bounded length."""
    text = " ".join(str(error).split()).partition(" To facilitate the conversion")[0]
    # Without positions in OpenVINO's source files, which do not help the user.
    return re.sub(r"(Exception from|Check '[^']*' failed at) \S+:\d+: ", "", text)[:300]
