"""Which engine computes a module: the launcher chooses, once, and all workers load what it chose."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from pipeline.core.quiet import import_tensorflow
from pipeline.core.settings import EngineName
from pipeline.engines.base import Engine, EngineSpec
from pipeline.engines.conversion import ADVICE, OpenVINOError
from pipeline.hub.cache import CacheError

_log = logging.getLogger(__name__)

# The devices by which a Linux machine shows a GPU of NVIDIA or AMD, or that of a Windows host.
_GPU_DEVICES = ("nvidiactl", "nvidia0", "kfd", "dxg")


@dataclasses.dataclass(frozen=True)
class ChosenEngine:
    """An engine that was found to work.

    Attributes:
      spec: what workers load it from.
      engine: the engine, loaded.
      parity: relative difference of its vectors from TensorFlow's; None for TensorFlow itself.
    """

    spec: EngineSpec
    engine: Engine
    parity: float | None


def choose_engine(wanted: EngineName, spec: EngineSpec) -> ChosenEngine:
    """Chooses and loads the engine for a module.

    `auto` is TensorFlow where it sees a GPU; else OpenVINO, if it converts the module and computes the
    vectors of TensorFlow; else TensorFlow, and a warning says why. A precision that only OpenVINO has
    leaves no choice.

    Args:
      wanted: the engine that was asked for.
      spec: what to load, of which the name does not matter.

    Raises:
      ModuleError: the module cannot be loaded, or not by the engine that was asked for.
    """
    if wanted == "auto":
        if spec.precision != "float32":
            wanted = "openvino"
        elif sees_gpu():
            _log.info("engine tensorflow: it sees a GPU")
            wanted = "tensorflow"
    if wanted != "tensorflow":
        from pipeline.engines.openvino import OpenVINOEngine

        spec = dataclasses.replace(spec, name="openvino")
        try:
            if spec.precision != "float32":
                OpenVINOEngine(dataclasses.replace(spec, precision="float32"))  # which checks the conversion
            engine = OpenVINOEngine(spec)
            return ChosenEngine(spec, engine, float(f"{engine.parity:.1e}"))
        except (OpenVINOError, CacheError) as error:
            if wanted != "auto":
                raise
            _log.warning("engine tensorflow, because openvino does not work: %s", str(error).removesuffix(ADVICE))
    spec = dataclasses.replace(spec, name="tensorflow")
    return ChosenEngine(spec, load_engine(spec), None)


def load_engine(spec: EngineSpec) -> Engine:
    """Loads a module's function into the engine that a spec names.

    Raises:
      ModuleError: the module cannot be loaded, or the engine cannot compute it.
    """
    if spec.name == "openvino":
        from pipeline.engines.openvino import OpenVINOEngine

        return OpenVINOEngine(spec)
    from pipeline.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(spec)


def sees_gpu(devices: Path = Path("/dev")) -> bool:
    """Says whether TensorFlow sees a GPU; does not load TensorFlow where there plainly is none.

    Args:
      devices: the directory of the system's devices.
    """
    if not any((devices / name).exists() for name in _GPU_DEVICES):
        return False
    import_tensorflow()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
