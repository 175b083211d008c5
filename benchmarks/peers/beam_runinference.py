"""Beam's RunInference with a TensorFlow model handler, on Beam's FnApiRunner."""

import apache_beam as beam
import tensorflow as tf
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerTensor
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from benchmarks.peers.tensorflow_module import load_signature, parse, to_example
from benchmarks.task import Task


class ModuleHandler(TFModelHandlerTensor):
    """Loads a signature of a module. Beam would load a Keras model, but Keras 3 cannot read one from a module."""

    def __init__(self, task: Task) -> None:
        super().__init__(task.module, inference_fn=infer, max_batch_size=64)
        self._task = task

    def load_model(self):
        return Loaded(self._task)


class Loaded:
    """A module and its function, in an object to which RunInference can keep a weak reference."""

    def __init__(self, task: Task) -> None:
        self.module, self.function = load_signature(task)


def infer(model, batch, inference_args, model_id=None):
    vectors = model.function(tf.stack(batch, axis=0))
    return [PredictionResult(None, vector) for vector in vectors.numpy()]


def run(task: Task) -> None:
    with beam.Pipeline(runner=FnApiRunner()) as root:
        _ = (
            root
            | beam.Create(list(task.files))
            | beam.io.ReadAllFromTFRecord()
            | beam.Map(lambda record: parse(task, record))
            | beam.MapTuple(lambda key, image: (key.numpy(), image))
            | RunInference(KeyedModelHandler(ModuleHandler(task)))
            | beam.MapTuple(lambda key, result: to_example(key, result.inference))
            | beam.io.WriteToTFRecord(f"{task.output}/vectors", file_name_suffix=".tfrecord")
        )
