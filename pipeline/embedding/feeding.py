"""The feeder interface, and the feeder for engines that many threads call.

A feeder takes groups of consecutive records and returns a future for each group. Decoding and inference are two
stages; a fixed number of reused buffers of fixed size connects them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.failures import Failure
from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.embedding.decoding import decode, make_buffer
from pipeline.engines.base import Engine
from pipeline.images.decoder import ImageDecoder

MakeBatch = Callable[[Sequence[ImageRecord], NDArray[np.float32], Sequence[Failure]], EmbeddingBatch]
"""Returns the batch of embedded records, their vectors, and the failures of other records."""


class ByteBudget:
    """A bound on the encoded bytes in flight, over all streams of an embedder."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._changed = threading.Condition()

    def acquire(self, size_bytes: int) -> None:
        """Waits until the bytes fit into the budget; a group above the bound passes if no other bytes are in flight."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used_bytes or self._used_bytes + size_bytes <= self._limit_bytes)
            self._used_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Returns bytes to the budget."""
        with self._changed:
            self._used_bytes -= size_bytes
            self._changed.notify_all()


class Feeder(Protocol):
    """Decodes and embeds groups of records.

    Attributes:
      group_size: number of records in a full group.
      groups_in_flight: number of groups that a stream submits before it waits for its first group.
    """

    group_size: int
    groups_in_flight: int

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """Embeds a group of records; waits while too many bytes are in flight."""
        ...

    def result(self, future: Future[EmbeddingBatch]) -> EmbeddingBatch:
        """Returns the result of `submit`, whether or not more records follow."""
        ...

    def close(self) -> None:
        """Stops the threads after their current groups."""
        ...


class DirectFeeder:
    """Decodes a group and calls the engine in the same thread, on all threads of a pool.

    This is the fastest way for a CPU engine: a decoded image is still in the core's cache. Each thread reuses one
    buffer for the images of one call, because allocating new memory costs more than writing the decoded image to it.
    """

    def __init__(
        self,
        engine: Engine,
        decoder: ImageDecoder,
        make_batch: MakeBatch,
        budget: ByteBudget,
        *,
        threads: int,
        group_size: int,
        groups_per_thread: int,
    ) -> None:
        self.group_size = -(-group_size // engine.batch_size) * engine.batch_size
        self.groups_in_flight = groups_per_thread * threads
        self._engine = engine
        self._decoder = decoder
        self._make_batch = make_batch
        self._budget = budget
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._local = threading.local()

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """See `Feeder`."""
        size_bytes = sum(len(record.image) for record in records)
        self._budget.acquire(size_bytes)
        future = self._pool.submit(self._embed, records)
        future.add_done_callback(lambda _: self._budget.release(size_bytes))
        return future

    def result(self, future: Future[EmbeddingBatch]) -> EmbeddingBatch:
        """See `Feeder`."""
        return future.result()

    def close(self) -> None:
        """See `Feeder`."""
        self._pool.shutdown(cancel_futures=True)

    def _embed(self, records: Sequence[ImageRecord]) -> EmbeddingBatch:
        embedded: list[ImageRecord] = []
        failures: list[Failure] = []
        vectors: list[NDArray[np.float32]] = []
        for images in decode(records, self._decoder, self._buffer()):
            failures += images.failures
            if images.records:
                vectors.append(self._engine.infer(images.pixels))
                embedded += images.records
        found = np.concatenate(vectors) if vectors else np.empty((0, self._engine.dimension), np.float32)
        return self._make_batch(embedded, found, failures)

    def _buffer(self) -> NDArray[Any]:
        """Returns the calling thread's buffer."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = make_buffer(self._engine, self._decoder, self._engine.batch_size)
        buffer: NDArray[Any] = self._local.buffer
        return buffer
