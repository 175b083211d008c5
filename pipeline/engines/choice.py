"""The choice of the engine: the launcher chooses once, and all workers load the chosen engine."""

from __future__ import annotations

import dataclasses
import logging

from pipeline.core.errors import ModuleError
from pipeline.engines import gpu
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.hub.cache import CacheError
from pipeline.model_formats.openvino_package import ADVICE, OpenVINOError
from pipeline.model_formats.registry import SAVED_MODEL_FORMATS

_log = logging.getLogger(__name__)


def choose_engine(function: ModuleFunction) -> Engine:
    """Returns the compiled engine for a module's function; `Engine.name` is its name.

    `auto` is TensorFlow if it sees a GPU or the module takes encoded images; else OpenVINO, if it converts the module
    and its vectors match TensorFlow's; else TensorFlow, with a warning that gives the reason. A precision or a
    module format that only OpenVINO supports selects OpenVINO. An explicit engine is compiled without a choice.

    Raises:
      ModuleError: the module cannot be loaded, or the requested engine cannot compute it.
    """
    wanted = function.engine
    if function.signature.is_encoded:
        if wanted == "openvino" or function.precision != "float32":
            raise ModuleError(
                f"signature '{function.signature.signature}' takes encoded images, which only TensorFlow decodes; use "
                "--engine=tensorflow and --precision=float32"
            )
        wanted = "tensorflow"
    if wanted == "auto":
        if function.precision != "float32" or function.format not in SAVED_MODEL_FORMATS:
            wanted = "openvino"
        elif gpu.sees_gpu():
            _log.info("engine tensorflow: it sees a GPU")
            wanted = "tensorflow"
    if wanted not in ("auto", "openvino"):
        return dataclasses.replace(function, engine=wanted).load()
    try:
        return _compile_openvino(dataclasses.replace(function, engine="openvino"))
    except (OpenVINOError, CacheError) as error:
        if wanted != "auto":
            raise
        _log.warning("engine tensorflow, because openvino does not work: %s", str(error).removesuffix(ADVICE))
    return dataclasses.replace(function, engine="tensorflow").load()


def _compile_openvino(function: ModuleFunction) -> Engine:
    if function.precision != "float32":
        dataclasses.replace(function, precision="float32").load()  # checks the conversion
    return function.load()
