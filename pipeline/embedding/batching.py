"""The feeder for engines with large batches and few concurrent calls, such as engines on an accelerator."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.embedding.decoding import DecodedImages, decode, make_buffer
from pipeline.embedding.feeding import ByteBudget, MakeBatch
from pipeline.engines.base import Engine
from pipeline.images.decoder import ImageDecoder

GROUP_SIZE = 8
"""Records in a group, which one thread decodes."""
BUFFERS_PER_THREAD = 2
"""Buffers of decoded groups for each decoding thread: the thread fills one, the other waits to be copied."""


@dataclass(eq=False)
class _Group:
    """A group of records in flight.

    Attributes:
      decoded: the result of the decoding stage; its pixels lie in `buffer`.
      buffer: the buffer of the decoded images.
      future: the result of the group.
      vectors: float32 [N, D], filled as the vectors arrive.
      missing: number of vectors that have not arrived.
      is_awaited: whether a stream waits for this group.
    """

    decoded: Future[DecodedImages]
    buffer: NDArray[Any]
    future: Future[EmbeddingBatch] = field(default_factory=Future)
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    missing: int = 0
    is_awaited: bool = False


@dataclass(frozen=True, eq=False)
class _Part:
    """Images of a group in a batch: `count` images from `start` on."""

    group: _Group
    start: int
    count: int


@dataclass(eq=False)
class _Batch:
    """The images of one call of the engine: dtype [batch_size, height, width, 3]; the first `count` are filled."""

    images: NDArray[Any]
    count: int = 0
    parts: list[_Part] = field(default_factory=list)


class BatchFeeder:
    """Decodes on many threads; `Engine.concurrent_calls` threads call the engine with full batches.

    ```
    groups -> decoding threads -> group buffers -> one thread that fills batches -> threads that call the engine
                                  (bounded)        (bounded)
    ```

    Batches are filled in the order of `submit`, across streams; failed images are skipped. A full batch goes to the
    engine. A partial batch goes to the engine only if a stream waits for one of its images and no other group is
    queued. The number of batches is one more than the concurrent calls: one is filled while the others are computed.
    """

    group_size = GROUP_SIZE

    def __init__(
        self, engine: Engine, decoder: ImageDecoder, make_batch: MakeBatch, budget: ByteBudget, *, threads: int
    ) -> None:
        calls = engine.concurrent_calls or 1
        # Enough for a single stream to keep all batches and all threads busy.
        self.groups_in_flight = -(-(calls + 1) * engine.batch_size // GROUP_SIZE) + BUFFERS_PER_THREAD * threads
        self._engine = engine
        self._decoder = decoder
        self._make_batch = make_batch
        self._budget = budget
        self._buffers: SimpleQueue[NDArray[Any]] = SimpleQueue()
        for _ in range(BUFFERS_PER_THREAD * threads):
            self._buffers.put(make_buffer(engine, decoder, GROUP_SIZE))
        self._free: SimpleQueue[NDArray[Any]] = SimpleQueue()
        for _ in range(calls + 1):
            self._free.put(make_buffer(engine, decoder, engine.batch_size))
        self._groups: SimpleQueue[_Group | None] = SimpleQueue()
        self._by_future: dict[Future[EmbeddingBatch], _Group] = {}
        self._order = threading.Lock()
        self._arrival = threading.Lock()
        self._closed = False
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._callers = ThreadPoolExecutor(calls, thread_name_prefix="infer")
        self._filler = threading.Thread(target=self._fill_batches, name="fill", daemon=True)
        self._filler.start()

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """See `Feeder`."""
        size_bytes = sum(len(record.image) for record in records)
        self._budget.acquire(size_bytes)
        # The lock queues the groups in the order of their buffers: the first group in the queue always has a buffer.
        with self._order:
            buffer = self._buffers.get()
            group = _Group(self._decoders.submit(decode_group, records, self._decoder, buffer), buffer)
            group.decoded.add_done_callback(lambda _: self._budget.release(size_bytes))
            self._by_future[group.future] = group
            self._groups.put(group)
        return group.future

    def result(self, future: Future[EmbeddingBatch]) -> EmbeddingBatch:
        """See `Feeder`."""
        group = self._by_future.get(future)
        if group is not None and not future.done():
            group.is_awaited = True
            self._groups.put(None)  # wakes the filling thread, which checks its batch again
        return future.result()

    def close(self) -> None:
        """See `Feeder`."""
        self._closed = True
        self._groups.put(None)
        self._filler.join()
        self._decoders.shutdown(cancel_futures=True)
        self._callers.shutdown(cancel_futures=True)

    def _fill_batches(self) -> None:
        """Copies decoded images to batches, in order."""
        batch: _Batch | None = None
        while not self._closed:
            group = self._groups.get()
            if group is not None:
                batch = self._take(group, batch)
            # An awaited image must not wait for images that may never arrive.
            if batch is not None and self._groups.empty() and any(part.group.is_awaited for part in batch.parts):
                self._callers.submit(self._infer, batch)
                batch = None

    def _take(self, group: _Group, batch: _Batch | None) -> _Batch | None:
        """Copies a group's images to `batch` and to further batches; returns the partial batch, if any."""
        try:
            images = group.decoded.result()
        except BaseException as error:
            self._buffers.put(group.buffer)
            self._finish(group, error)
            return batch
        group.missing = len(images.records)
        group.vectors = np.empty((group.missing, self._engine.dimension), np.float32)
        start = 0
        while start < len(images.records):
            if batch is None:
                batch = _Batch(self._free.get())
            part = _Part(group, start, min(self._engine.batch_size - batch.count, len(images.records) - start))
            batch.images[batch.count : batch.count + part.count] = images.pixels[start : start + part.count]
            batch.parts.append(part)
            batch.count += part.count
            start += part.count
            if batch.count == self._engine.batch_size:
                self._callers.submit(self._infer, batch)
                batch = None
        self._buffers.put(group.buffer)
        if not images.records:
            self._finish(group)
        return batch

    def _infer(self, batch: _Batch) -> None:
        try:
            vectors = self._engine.infer(batch.images[: batch.count])
        except BaseException as error:
            for part in batch.parts:
                self._finish(part.group, error)
            return
        finally:
            self._free.put(batch.images)
        start = 0
        for part in batch.parts:
            group = part.group
            group.vectors[part.start : part.start + part.count] = vectors[start : start + part.count]
            start += part.count
            with self._arrival:  # another thread may compute other images of the group
                group.missing -= part.count
                is_complete = not group.missing
            if is_complete:
                self._finish(group)

    def _finish(self, group: _Group, error: BaseException | None = None) -> None:
        """Sets a group's result, once."""
        if self._by_future.pop(group.future, None) is None:
            return
        try:
            if error is not None:
                raise error
            images = group.decoded.result()
            group.future.set_result(self._make_batch(images.records, group.vectors, images.failures))
        except BaseException as raised:
            group.future.set_exception(raised)


def decode_group(records: Sequence[ImageRecord], decoder: ImageDecoder, buffer: NDArray[Any]) -> DecodedImages:
    """Decodes a group that is not larger than the buffer."""
    return next(decode(records, decoder, buffer), DecodedImages((), buffer[:0], ()))
