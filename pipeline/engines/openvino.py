"""Inference by OpenVINO, on CPUs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cores import usable_cores
from pipeline.core.errors import ModuleError
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.engines.batches import fill_up, in_batches
from pipeline.engines.conversion import advice, call_size, check_vectors, converted
from pipeline.engines.parity import PARITY_LIMIT, REDUCED_PARITY_LIMIT, probe_images, relative_difference
from pipeline.engines.references import compute_reference
from pipeline.model_formats.openvino_package import OpenVINOError, import_openvino, one_line, openvino_errors
from pipeline.model_formats.registry import MODEL_FORMATS, SAVED_MODEL_FORMATS

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine(Engine):
    """A module's function, compiled for one image at a time, or for the number of images that the module wants.

    Each calling thread has its own inference request, and one thread computes each request: the number of images in
    flight is the number of threads. Batches of one image are fastest: the activations between layers stay in the
    core's own cache.
    """

    name = "openvino"
    formats = tuple(MODEL_FORMATS)

    def __init__(self, function: ModuleFunction) -> None:
        """Compiles a module's function; converts the function first if the cache lacks it.

        Raises:
          ModuleError: the module cannot be loaded, or the CPU does not support the precision.
          OpenVINOError: OpenVINO cannot convert or compile the function, or its float32 vectors do not match those of
            the reference.
          CacheError: the converted module cannot be stored.
        """
        module = converted(function)
        self._module, self._function = module, function
        self.batch_size = call_size(function.signature)
        self._openvino = import_openvino()
        self._local = threading.local()
        try:
            self._model = self._compile(module.model, function)
        except openvino_errors(self._openvino) as error:
            raise OpenVINOError(
                f"OpenVINO cannot compile {function.path}: {one_line(error)}{advice(function)}"
            ) from error
        probes = probe_images(function.signature.height, function.signature.width)
        vectors = in_batches(self.infer, probes, self.batch_size)
        check_vectors(vectors, len(probes))
        self.dimension = vectors.shape[1]
        reference = MODEL_FORMATS[function.format].reference
        if reference is None or module.reference is None:
            return
        parity = relative_difference(vectors, module.reference)
        limit = PARITY_LIMIT
        if function.precision != "float32":
            limit = float(np.finfo(np.float32).max)
        elif function.format not in SAVED_MODEL_FORMATS and self._is_reduced(module.model):
            limit = REDUCED_PARITY_LIMIT
        if not parity <= limit:
            raise OpenVINOError(
                f"OpenVINO's vectors of {function.path} differ from {reference.title}'s by {parity:.1e}, relative "
                f"L2; expected at most {limit:.0e}{advice(function)}"
            )
        self.parity = float(f"{parity:.1e}")
        self.reference = module.library

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Returns the vectors that the framework of the module computes; loads it if nothing keeps these vectors."""
        if self.reference is None:
            return None
        known = self._module.reference_of(images)
        return compute_reference(self._function, images) if known is None else known

    def _is_reduced(self, model: Path) -> bool:
        """Returns whether a converted network has intermediate values of half or integer precision."""
        half = (self._openvino.Type.f16, self._openvino.Type.bf16)
        return any(
            node.get_type_name() == "FakeQuantize"
            or (node.get_type_name() != "Const" and node.get_output_size() and node.get_output_element_type(0) in half)
            for node in self._openvino.Core().read_model(model).get_ops()
        )

    def _compile(self, model: Any, function: ModuleFunction) -> Any:
        threads = function.threads or usable_cores()
        precision = _PRECISIONS[function.precision]
        core = self._openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModuleError("this CPU does not compute in bfloat16; use --precision=float32")
        return core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # With pinning, every process would use the same first cores.
                "ENABLE_CPU_PINNING": False,
            },
        )

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors float32 [N, D] of up to `batch_size` images, float32 [N, height, width, 3].

        Fastest if every call of a thread passes the same array: it then stays set as the input tensor.
        """
        count = len(images)
        images = fill_up(images, self.batch_size)
        local = self._local
        if not hasattr(local, "request"):
            local.request = self._model.create_infer_request()
            local.output = local.request.get_output_tensor().data
            local.images = None
        if images is not local.images:
            local.request.set_input_tensor(self._openvino.Tensor(images, shared_memory=True))
            local.images = images
        local.request.infer(share_outputs=True)
        vectors: NDArray[np.float32] = local.output[:count].copy()
        return vectors
