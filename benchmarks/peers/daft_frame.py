"""Daft on encoded images in Parquet: its own decoding and resizing, and a class UDF that holds the module.

Each core has an instance in a process of its own: in threads of one process they would share Python's lock.
"""

import daft
import numpy as np
import pyarrow as pa
from daft import DataType, Series, col
from daft.functions import decode_image, resize

from benchmarks.peers.network import load_network
from benchmarks.task import Task

BATCH = 32


class Embed:
    def __init__(self, task: Task) -> None:
        self._network = load_network(task, threads=1)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=BATCH)
    def __call__(self, images: Series):
        vectors = self._network(np.stack(images.to_pylist()).astype(np.float32) / np.float32(255))
        offsets = np.arange(len(vectors) + 1, dtype=np.int64) * vectors.shape[1]
        return pa.LargeListArray.from_arrays(offsets, vectors.reshape(-1))


def run(task: Task) -> None:
    model = daft.cls(Embed, max_concurrency=task.threads, use_process=True)(task)
    image = resize(decode_image(col("image"), mode="RGB"), w=task.width, h=task.height)
    frame = daft.read_parquet(list(task.files)).select(col("id").alias("key"), image.alias("image"))
    frame.select(col("key"), model(col("image")).alias("embedding")).write_parquet(task.output)
