"""`Dataset.map` of Hugging Face datasets, batched, with one process for each core; it decodes images with Pillow.

`load_dataset` copies the Parquet files into the library's cache first; the measured time includes this copy.
"""

import os

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Image, disable_progress_bars, load_dataset
from PIL.Image import Resampling

from benchmarks.peers.network import Network, load_network
from benchmarks.task import Task

BATCH = 32


class Embed:
    """Embeds a batch of rows; loads the module at the first one, so that each process has its own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._network: Network | None = None

    def __call__(self, rows):
        if self._network is None:
            self._network = load_network(self._task, threads=1)
        size = (self._task.width, self._task.height)
        resized = [np.asarray(image.convert("RGB").resize(size, Resampling.BILINEAR)) for image in rows["image"]]
        return {"key": rows["id"], "embedding": self._network(np.stack(resized).astype(np.float32) / np.float32(255))}


def run(task: Task) -> None:
    disable_progress_bars()
    rows = load_dataset("parquet", data_files=list(task.files), split="train", cache_dir=f"{task.output}/cache")
    vectors = rows.cast_column("image", Image()).map(
        Embed(task), batched=True, batch_size=BATCH, num_proc=task.threads, remove_columns=rows.column_names
    )
    vectors.to_parquet(f"{task.output}/vectors.parquet")
