"""The module as a function of decoded images, for peers whose library leaves inference to the user."""

from collections.abc import Callable

import numpy as np

from benchmarks.task import Task
from pipeline.engines.base import ModuleFunction
from pipeline.engines.conversion import converted
from pipeline.model_formats.openvino_package import import_openvino
from pipeline.savedmodel.signatures import ImageSignature

Network = Callable[[np.ndarray], np.ndarray]
"""float32 [N, height, width, 3] in [0, 1] to float32 [N, D]."""


def load_network(task: Task, threads: int) -> Network:
    """Returns the module on the engine of the option `engine`: `tensorflow` (the default) or `openvino`.

    Several threads may call the function at the same time.

    Args:
      task: names the module.
      threads: number of threads that all calls share.
    """
    load = _load_openvino if task.options.get("engine") == "openvino" else _load_tensorflow
    return load(task, threads)


def _load_tensorflow(task: Task, threads: int) -> Network:
    import tensorflow as tf

    from benchmarks.peers.tensorflow_module import load_signature

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    module, vectors = load_signature(task)

    def infer(images: np.ndarray, _module: object = module) -> np.ndarray:
        return vectors(tf.constant(images, tf.float32)).numpy()

    return infer


def _load_openvino(task: Task, threads: int) -> Network:
    signature = ImageSignature(task.signature, task.input_key, task.output_key, task.height, task.width, None)
    module = converted(ModuleFunction(task.module, task.module, task.sha256, signature))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    compiled = import_openvino().Core().compile_model(module.model, "CPU", settings)

    def infer(images: np.ndarray) -> np.ndarray:
        # Single images are the fastest on a CPU; a new request for each call makes the function safe for threads.
        request = compiled.create_infer_request()
        return np.concatenate([request.infer([image[np.newaxis]])[0] for image in images])

    return infer
