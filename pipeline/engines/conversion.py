"""A module's function as an OpenVINO model, converted once with TensorFlow and kept in the module cache.

```
CACHE/openvino-<SHA-256 of the identity>/module/
    model.xml, model.bin    the network in OpenVINO's format, float32, input [1, height, width, 3]
    probe.npy               TensorFlow's vectors of `probe_images`
```

Only the first run of a module loads TensorFlow. The identity of a conversion is the module, its function and the
versions of both libraries.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.core.timing import timed
from pipeline.engines.base import ModuleFunction
from pipeline.engines.parity import probe_images
from pipeline.hub.cache import ModuleCache, cache_directory
from pipeline.savedmodel.module import freeze

ADVICE = "; use --engine=tensorflow"
"""The end of every `OpenVINOError`."""

_VERSION = 1
_MODEL, _PROBE = "model.xml", "probe.npy"
_TELEMETRY = "openvino_telemetry"


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


class OpenVINOError(ModuleError):
    """OpenVINO cannot compute a module; the module may be valid."""


class ConvertedModule:
    """A module's function in OpenVINO's format on this machine.

    Attributes:
      model: path of the model file.
      reference: TensorFlow's vectors of `probe_images`, float32 [N, D].
    """

    def __init__(self, directory: Path) -> None:
        """Reads a directory that `convert` wrote."""
        self.model = directory / _MODEL
        self.reference: NDArray[np.float32] = np.load(directory / _PROBE)


def converted(function: ModuleFunction) -> ConvertedModule:
    """Returns a module's function in OpenVINO's format, from the cache if possible.

    Raises:
      ModuleError: the module cannot be loaded, or its output is not a vector.
      OpenVINOError: OpenVINO cannot convert the module.
      CacheError: the cache cannot be written.
    """
    signature = function.signature
    identity = (
        _VERSION,
        function.sha256,
        (signature.signature, signature.input_key, signature.output_key, signature.height, signature.width),
        [(name, importlib.metadata.version(name)) for name in ("openvino", "tensorflow")],
    )

    def make(work: Path) -> Path:
        (work / "model").mkdir()
        with timed("of that, converting it with TensorFlow's help"):
            convert(function, work / "model")
        return work / "model"

    cache = ModuleCache(cache_directory(), kind="openvino", root_file=_MODEL)
    return ConvertedModule(Path(cache.get(function.path, identity, make, None).path))


def convert(function: ModuleFunction, directory: Path) -> None:
    """Writes a module's function in OpenVINO's format, and TensorFlow's vectors of the probe images.

    Raises:
      ModuleError: the module cannot be loaded, or its output is not a vector.
      OpenVINOError: OpenVINO cannot convert the module.
    """
    signature = function.signature
    graph = freeze(function.path, signature, 1)
    probes = probe_images(signature.height, signature.width)
    reference = np.concatenate([_call(graph.function, probes[i : i + 1]) for i in range(len(probes))])
    np.save(directory / _PROBE, reference)
    openvino = import_openvino()
    frozen = directory / "frozen.pb"
    frozen.write_bytes(graph.function.graph.as_graph_def().SerializeToString())
    try:
        model = openvino.Core().read_model(frozen)
        model.reshape([1, signature.height, signature.width, 3])
        openvino.save_model(model, directory / _MODEL, compress_to_fp16=False)
    except openvino_errors(openvino) as error:
        text = f"OpenVINO cannot convert signature '{signature.signature}' of {function.path}: {one_line(error)}"
        raise OpenVINOError(text + ADVICE) from error
    finally:
        frozen.unlink()


def _call(function: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import tensorflow as tf

    vectors: NDArray[np.float32] = function(tf.constant(images))[0].numpy()
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ModuleError(
            f"the output for {len(images)} image has shape {list(vectors.shape)}; expected one vector an image; "
            "choose another --output_key"
        )
    return vectors


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
