"""The embedder: encoded images in, vectors and failures out; the thing that a worker shares.

One `Embedder` holds the loaded module and a pool of threads. Each thread takes a few consecutive
records, decodes them and infers them as one batch, so that decoding and inference of different
batches overlap. `BatchesInFlight` feeds it a stream and bounds what is under way.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.engines.base import Engine, load_engine
from pipeline.errors import ImageError
from pipeline.examples import embedding_rows
from pipeline.hub.module import ImageSignature
from pipeline.images import ImageDecoder
from pipeline.records import EmbeddingBatch, Failure, FailureReason, ImageRecord
from pipeline.settings import Normalization

_log = logging.getLogger(__name__)

BATCHES_PER_THREAD = 3
"""Batches under way for each thread: one in work, and enough waiting that it never waits itself."""
MAX_BATCH_BYTES = 16 << 20
"""Encoded bytes after which a batch is closed early, so that a few huge images cannot fill memory."""


def usable_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class EmbedderSpec:
    """All that an `Embedder` is made from; it travels to the workers.

    Attributes:
      module_path: directory of the module.
      signature: the module's function.
      decoder: how encoded bytes become pixels.
      engine: name of the inference engine.
      batch_size: images per inference batch, or None for the engine's choice.
      normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
    """

    module_path: str
    signature: ImageSignature
    decoder: ImageDecoder
    engine: str = "tensorflow"
    batch_size: int | None = None
    normalize: Normalization = "none"


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
        threads: int | None = None,
    ) -> None:
        """Takes a loaded engine.

        Args:
          engine: what infers.
          decoder: what decodes, to the size that the engine expects.
          normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
          threads: size of the pool; default: one thread for each usable core.
        """
        self.engine = engine
        self.threads = threads or usable_cores()
        self._decoder = decoder
        self._normalize = normalize
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="embed")

    @classmethod
    def load(cls, spec: EmbedderSpec) -> Embedder:
        """Loads the module that a spec names.

        Raises:
          ModuleError: the module cannot be loaded.
        """
        started = time.monotonic()
        engine = load_engine(spec.module_path, spec.signature, engine=spec.engine, batch_size=spec.batch_size)
        _log.info(
            "process %d loaded the module in %.1f s, engine %s", os.getpid(), time.monotonic() - started, engine.name
        )
        return cls(engine, spec.decoder, normalize=spec.normalize)

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the pool's threads, after the batches they are at."""
        self._pool.shutdown(cancel_futures=True)

    def embed(self, records: Sequence[ImageRecord]) -> EmbeddingBatch:
        """Embeds at most `engine.batch_size` records in the calling thread."""
        decoder = self._decoder
        images = np.empty((len(records), decoder.height, decoder.width, 3), np.float32)
        decoded: list[ImageRecord] = []
        failures: list[Failure] = []
        for record in records:
            try:
                decoder(record.image, out=images[len(decoded)])
            except ImageError as error:
                failures.append(Failure(record.key, record.source, "decode", _reason(error), str(error)))
            else:
                decoded.append(record)
        if not decoded:
            return EmbeddingBatch((), tuple(failures))
        vectors = self._vectors(images[: len(decoded)])
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            for record, vector in zip(decoded, vectors, strict=True):
                bad = int(np.count_nonzero(~np.isfinite(vector)))
                if bad:
                    text = f"{bad} of {len(vector)} values of the vector are NaN or infinite"
                    failures.append(Failure(record.key, record.source, "embed", "nonfinite", text))
            decoded = [record for record, good in zip(decoded, finite, strict=True) if good]
            vectors = vectors[finite]
        return EmbeddingBatch(embedding_rows(decoded, vectors), tuple(failures), tuple(r.source for r in decoded))

    def _vectors(self, images: np.ndarray) -> np.ndarray:
        vectors = self.engine.infer(images)
        if self._normalize == "l2":
            # A zero vector has no direction; it stays as it is.
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return vectors

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """Embeds at most `engine.batch_size` records in a thread of the pool."""
        return self._pool.submit(self.embed, records)

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
        if len(self._waiting) == self._embedder.engine.batch_size or self._waiting_bytes >= MAX_BATCH_BYTES:
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
