"""Ray Data with a pool of actors, one for each core; each actor holds the module."""

import cv2
import numpy as np
import ray
import simplejpeg

from benchmarks.peers.network import load_network
from benchmarks.task import Task


def decode(row, task: Task):
    image = row["image/encoded"]
    pixels = simplejpeg.decode_jpeg(image[0] if isinstance(image, list) else image, "RGB")
    resized = cv2.resize(pixels.astype(np.float32), (task.width, task.height)) / np.float32(255)
    return {"key": row["id"], "image": resized}


class Embed:
    def __init__(self, task: Task) -> None:
        self._network = load_network(task, threads=1)

    def __call__(self, batch):
        return {"key": batch["key"], "embedding": self._network(batch["image"].astype(np.float32))}


def run(task: Task) -> None:
    ray.init(num_cpus=task.threads, include_dashboard=False, log_to_driver=False)
    (
        ray.data.read_tfrecords(list(task.files))
        .map(decode, fn_args=[task])
        .map_batches(Embed, fn_constructor_args=[task], batch_size=32, concurrency=task.threads, num_cpus=0.5)
        .write_parquet(task.output)
    )
