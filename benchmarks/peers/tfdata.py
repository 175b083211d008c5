"""tf.data, which feeds batches to the module. Option `frozen`: the module's variables become constants."""

import tensorflow as tf

from benchmarks.peers.tensorflow_module import load_signature, parse, to_example
from benchmarks.task import Task

BATCH = 32


def run(task: Task) -> None:
    _module, vectors = load_signature(task)
    if task.options.get("frozen"):
        from tensorflow.python.framework import convert_to_constants

        shape = tf.TensorSpec([None, task.height, task.width, 3], tf.float32)
        function = tf.function(vectors, input_signature=[shape]).get_concrete_function()
        frozen = convert_to_constants.convert_variables_to_constants_v2(function)

        def vectors(images):
            return frozen(images)[0]

    records = tf.data.TFRecordDataset(list(task.files), num_parallel_reads=tf.data.AUTOTUNE)
    images = records.map(lambda record: parse(task, record), num_parallel_calls=tf.data.AUTOTUNE)
    with tf.io.TFRecordWriter(f"{task.output}/vectors.tfrecord") as writer:
        for keys, batch in images.batch(BATCH).prefetch(tf.data.AUTOTUNE):
            for key, vector in zip(keys.numpy(), vectors(batch).numpy(), strict=True):
                writer.write(to_example(key, vector))
