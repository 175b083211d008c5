"""tfx-bsl's RunInference on a SavedModel that takes serialized Examples, on Beam's FnApiRunner."""

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from tfx_bsl.public.beam import RunInference
from tfx_bsl.public.proto import model_spec_pb2

from benchmarks.peers.tensorflow_module import load_signature, parse, to_example
from benchmarks.task import Task


def export(task: Task, directory: str) -> None:
    """Writes the module with parsing, decoding and resizing in front of it."""
    module, vectors = load_signature(task)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples):
        spec = tf.TensorSpec([task.height, task.width, 3], tf.float32)
        images = tf.map_fn(lambda example: parse(task, example)[1], examples, fn_output_signature=spec)
        return {"embedding": vectors(images)}

    exported = tf.Module()
    exported.module = module
    exported.serve = serve
    tf.saved_model.save(exported, directory, signatures={"serving_default": serve})


def with_key(serialized: bytes) -> tuple[bytes, bytes]:
    example = tf.train.Example.FromString(serialized)
    return example.features.feature["id"].bytes_list.value[0], serialized


def to_output(key: bytes, log) -> bytes:
    return to_example(key, np.ravel(tf.make_ndarray(log.predict_log.response.outputs["embedding"])))


def run(task: Task) -> None:
    directory = f"{task.output}/exported"
    export(task, directory)
    spec = model_spec_pb2.InferenceSpecType()
    spec.saved_model_spec.model_path = directory
    spec.saved_model_spec.signature_name.append("serving_default")
    with beam.Pipeline(runner=FnApiRunner()) as root:
        _ = (
            root
            | beam.Create(list(task.files))
            | beam.io.ReadAllFromTFRecord()
            | beam.Map(with_key)
            | RunInference(spec)
            | beam.MapTuple(to_output)
            | beam.io.WriteToTFRecord(f"{task.output}/vectors", file_name_suffix=".tfrecord")
        )
