"""The embedder: encoded images in, vectors and failures out; the thing that a worker shares.

One `Embedder` holds the loaded module and a pool of threads. Each thread takes a few consecutive
records at a time, decodes and infers them, so that decoding and inference of different batches
overlap. `BatchesInFlight` feeds it a stream and bounds what is under way.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cores import usable_cores
from pipeline.core.errors import ImageError
from pipeline.core.records import EmbeddingBatch, Failure, FailureReason, ImageRecord
from pipeline.core.settings import Normalization
from pipeline.core.timing import log_step
from pipeline.embedding.model import EmbedderSpec, choose_embedder
from pipeline.engines.base import Engine
from pipeline.engines.choice import load_engine
from pipeline.hub.handles import resolve
from pipeline.images.decoder import ImageDecoder
from pipeline.tfrecords.examples import embedding_rows

_log = logging.getLogger(__name__)

THREADS_PER_CORE = 2
"""Threads of the pool for each core: while one waits for its inference, which the engine's threads do, one decodes."""
BATCHES_PER_THREAD = 2
"""Batches under way for each thread: one in work, and one waiting so that the thread never waits itself."""
BATCH_SIZE = 32
"""Records that a thread takes at a time: enough that handing them over costs little, few enough to hold little."""
MAX_BATCH_BYTES = 16 << 20
"""Encoded bytes after which a batch is closed early, so that a few huge images cannot fill memory."""
MAX_BYTES_PER_THREAD = 16 << 20
"""Encoded bytes under way for each thread, counted over all streams that share an embedder."""


class Embedder:
    """Turns encoded images into vectors; any number of threads may share one.

    Example:
      ```
      with Embedder.load(spec) as embedder:
          for batch in embedder.stream(records):
              print(batch.num_rows, batch.failures)
      ```
    """

    def __init__(
        self,
        engine: Engine,
        decoder: ImageDecoder,
        *,
        normalize: Normalization = "none",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Takes a loaded engine.

        Args:
          engine: what infers.
          decoder: what decodes, to the size that the engine expects.
          normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
          batch_size: records that a thread takes at a time, rounded up to whole calls of the engine.
          threads: size of the pool; default: `THREADS_PER_CORE` for each usable core.
        """
        self.engine = engine
        self.threads = threads or THREADS_PER_CORE * usable_cores()
        self.batch_size = -(-(batch_size or BATCH_SIZE) // engine.batch_size) * engine.batch_size
        self._decoder = decoder
        self._normalize = normalize
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="embed")
        self._local = threading.local()
        self._bytes_under_way = 0
        self._bytes_changed = threading.Condition()
        self._loaded = time.monotonic()
        self._is_first = True

    @classmethod
    def from_module(cls, handle: str | os.PathLike[str], **settings: Any) -> Embedder:
        """Loads a module: `Embedder.from_module("module.tar.gz", normalize="l2")`.

        Args:
          handle: as in `--module`.
          **settings: other fields of `pipeline.core.settings.ModuleConfig`, `DecodeConfig` and `EngineConfig`.

        Raises:
          UsageError: a setting is unknown or cannot be honoured.
          ModuleError: the module cannot be found, trusted or used.
        """
        chosen = choose_embedder(handle, **settings)
        return cls.with_engine(chosen.spec, chosen.engine)

    @classmethod
    def load(cls, spec: EmbedderSpec) -> Embedder:
        """Loads the module that a spec names, from wherever it lies.

        Raises:
          ModuleError: the module cannot be found or loaded, or has another digest.
        """
        started = time.monotonic()
        module = resolve(spec.engine.module_path, sha256=spec.engine.module_sha256)
        engine = load_engine(dataclasses.replace(spec.engine, module_path=module.path))
        _log.info(
            "process %d loaded the module in %.1f s, engine %s", os.getpid(), time.monotonic() - started, engine.name
        )
        return cls.with_engine(spec, engine)

    @classmethod
    def with_engine(cls, spec: EmbedderSpec, engine: Engine) -> Embedder:
        """Returns the embedder of a spec whose engine is loaded already."""
        threads = THREADS_PER_CORE * (spec.engine.threads or usable_cores())
        return cls(engine, spec.decoder, normalize=spec.normalize, batch_size=spec.batch_size, threads=threads)

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the pool's threads, after the batches they are at."""
        self._pool.shutdown(cancel_futures=True)

    def embed(self, records: Sequence[ImageRecord]) -> EmbeddingBatch:
        """Embeds a few records in the calling thread."""
        embedded: list[ImageRecord] = []
        vectors: list[NDArray[np.float32]] = []
        failures: list[Failure] = []
        images = self._images()
        waiting: list[ImageRecord] = []
        for record in records:
            try:
                self._decoder(record.image, out=images[len(waiting)])
            except ImageError as error:
                failures.append(Failure(record.key, record.source, "decode", _reason(error), str(error)))
                continue
            waiting.append(record)
            if len(waiting) == len(images):
                vectors.append(self.engine.infer(images))
                embedded += waiting
                waiting = []
        if waiting:
            vectors.append(self.engine.infer(images[: len(waiting)]))
            embedded += waiting
        if self._is_first:
            self._is_first = False
            log_step("from there to the first batch", time.monotonic() - self._loaded)
        if not embedded:
            return EmbeddingBatch((), tuple(failures), ())
        return self._to_batch(embedded, np.concatenate(vectors), failures)

    def _images(self) -> NDArray[np.float32]:
        """Returns the calling thread's room for the images of one call of the engine.

        Memory that is new each time costs more than the decoded image that is written to it.
        """
        images: NDArray[np.float32] | None = getattr(self._local, "images", None)
        if images is None:
            decoder = self._decoder
            images = np.zeros((self.engine.batch_size, decoder.height, decoder.width, 3), np.float32)
            self._local.images = images
        return images

    def _to_batch(
        self, records: list[ImageRecord], vectors: NDArray[np.float32], failures: list[Failure]
    ) -> EmbeddingBatch:
        finite = np.logical_and.reduce(np.isfinite(vectors), axis=1)
        if not finite.all():
            for record, vector in zip(records, vectors, strict=True):
                bad = int(np.count_nonzero(~np.isfinite(vector)))
                if bad:
                    text = f"{bad} of {len(vector)} values of the vector are NaN or infinite"
                    failures.append(Failure(record.key, record.source, "embed", "nonfinite", text))
            records = [record for record, good in zip(records, finite, strict=True) if good]
            vectors = vectors[finite]
        if self._normalize == "l2":
            # A zero vector has no direction; it stays as it is.
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        rows = embedding_rows(records, vectors)
        return EmbeddingBatch(rows, tuple(failures), tuple(record.source for record in records))

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """Embeds a few records in a thread of the pool; waits while too many bytes are under way."""
        size_bytes = sum(len(record.image) for record in records)
        with self._bytes_changed:
            self._bytes_changed.wait_for(lambda: self._has_room(size_bytes))
            self._bytes_under_way += size_bytes
        future = self._pool.submit(self.embed, records)
        future.add_done_callback(lambda _: self._add_bytes(-size_bytes))
        return future

    def _has_room(self, size_bytes: int) -> bool:
        under_way = self._bytes_under_way
        return not under_way or under_way + size_bytes <= MAX_BYTES_PER_THREAD * self.threads

    def _add_bytes(self, size_bytes: int) -> None:
        with self._bytes_changed:
            self._bytes_under_way += size_bytes
            self._bytes_changed.notify_all()

    def stream(self, records: Iterable[ImageRecord]) -> Iterator[EmbeddingBatch]:
        """Embeds any number of records, in order, with a bounded number under way."""
        batches = BatchesInFlight(self)
        for record in records:
            yield from batches.add(record)
        yield from batches.drain()


def _reason(error: ImageError) -> FailureReason:
    return error.reason  # type: ignore[return-value]


class BatchesInFlight:
    """Groups one stream of records into batches and keeps a bounded number of them under way.

    Not for several threads: each has its own, over a shared `Embedder`.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._limit = BATCHES_PER_THREAD * embedder.threads
        self._waiting: list[ImageRecord] = []
        self._waiting_bytes = 0
        self._futures: deque[Future[EmbeddingBatch]] = deque()

    def add(self, record: ImageRecord) -> Iterator[EmbeddingBatch]:
        """Takes one more record; yields the batches that are done, in input order."""
        self._waiting.append(record)
        self._waiting_bytes += len(record.image)
        if len(self._waiting) == self._embedder.batch_size or self._waiting_bytes >= MAX_BATCH_BYTES:
            self._submit()
        while len(self._futures) > self._limit or (self._futures and self._futures[0].done()):
            yield self._futures.popleft().result()

    def drain(self) -> Iterator[EmbeddingBatch]:
        """Yields all that is still under way, in input order."""
        self._submit()
        while self._futures:
            yield self._futures.popleft().result()

    def _submit(self) -> None:
        if self._waiting:
            self._futures.append(self._embedder.submit(self._waiting))
            self._waiting, self._waiting_bytes = [], 0
