"""The embedder: encoded images in, vectors and failures out. The threads and bundles of a worker share one embedder.

An `Embedder` holds a compiled engine and a feeder, which overlaps decoding and inference. `BatchesInFlight` feeds a
stream to the embedder and bounds the number of groups in flight.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from pipeline.core.cores import usable_cores
from pipeline.core.errors import UsageError
from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.core.settings import DecodeConfig, EngineConfig, ModuleConfig, Normalization, PreprocessConfig
from pipeline.core.timing import log_step, timed
from pipeline.embedding.batching import BatchFeeder
from pipeline.embedding.certificate import certify
from pipeline.embedding.dataset_spec import Certificate, Spec
from pipeline.embedding.embedder_spec import EmbedderSpec, find_embedder
from pipeline.embedding.feeding import ByteBudget, DirectFeeder, Feeder
from pipeline.embedding.rows import make_batch
from pipeline.embedding.tally import TallyCounter
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.engines.choice import choose_engine
from pipeline.images.decoder import ImageDecoder

_log = logging.getLogger(__name__)

THREADS_PER_CORE = 2
"""Decoding threads for each core: while one waits for its inference, another decodes."""
GROUPS_PER_THREAD = 2
"""Groups in flight for each of these threads: one is processed, one is queued."""
GROUP_SIZE = 32
"""Records in a group: a trade-off between the overhead of a hand-over and memory."""
MAX_GROUP_BYTES = 16 << 20
"""Encoded bytes that close a group early: a few huge images must not fill memory."""
MAX_BYTES_PER_THREAD = 16 << 20
"""Encoded bytes in flight for each thread, over all streams that share an embedder."""


class Embedder:
    """Turns encoded images into vectors; any number of threads may share one.

    Example:
      ```
      with Embedder.load(spec) as embedder:
          for batch in embedder.stream(records):
              print(batch.num_rows, batch.failures)
      ```

    Attributes:
      engine: the compiled engine.
      spec: the spec of the embedder; None for an embedder that was made from an engine.
      threads: number of decoding threads.
      group_size: number of records in a full group, the unit of work of a thread.
      tally: counts for the display of a run's progress; the callers add to it.
    """

    def __init__(
        self,
        engine: Engine,
        decoder: ImageDecoder,
        *,
        normalize: Normalization = "none",
        batch_size: int | None = None,
        threads: int | None = None,
        spec: EmbedderSpec | None = None,
    ) -> None:
        """Starts the threads for a compiled engine.

        Args:
          engine: computes the vectors.
          decoder: decodes to the input size of the engine.
          normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
          batch_size: records in a group, rounded up to whole calls of the engine; ignored for an engine with
            `concurrent_calls`, which has its own batch size.
          threads: number of decoding threads; default: `THREADS_PER_CORE` for each usable core.
          spec: what the engine was loaded from, if it was loaded from a spec.
        """
        self.engine = engine
        self.spec = spec
        self.tally = TallyCounter()
        self.threads = threads or THREADS_PER_CORE * usable_cores()
        rows = functools.partial(make_batch, normalize=normalize)
        budget = ByteBudget(MAX_BYTES_PER_THREAD * self.threads)
        self._feeder: Feeder
        if engine.concurrent_calls is None:
            self._feeder = DirectFeeder(
                engine,
                decoder,
                rows,
                budget,
                threads=self.threads,
                group_size=batch_size or GROUP_SIZE,
                groups_per_thread=GROUPS_PER_THREAD,
            )
        else:
            self._feeder = BatchFeeder(engine, decoder, rows, budget, threads=self.threads)
        self.group_size = self._feeder.group_size
        self.groups_in_flight = self._feeder.groups_in_flight
        self._loaded = time.monotonic()
        self._is_first = True

    @classmethod
    def from_module(cls, handle: str | os.PathLike[str], **settings: Any) -> Embedder:
        """Returns the embedder of a module: `Embedder.from_module("module.tar.gz", normalize="l2")`.

        Args:
          handle: as in `--module`.
          **settings: other fields of `pipeline.core.settings.ModuleConfig`, `PreprocessConfig`, `DecodeConfig` and
            `EngineConfig`.

        Raises:
          UsageError: a setting is unknown or cannot be honoured.
          ModuleError: the module cannot be found, trusted or used.
        """
        sections = (ModuleConfig, PreprocessConfig, DecodeConfig, EngineConfig)
        names = [{item.name for item in dataclasses.fields(section)} for section in sections]
        known = sorted(set().union(*names))
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise UsageError(f"unknown setting '{unknown[0]}'; expected some of {', '.join(known)}")
        module, preprocess, decode, engine = (
            {name: settings[name] for name in found if name in settings} for found in names
        )
        return cls.choose(
            find_embedder(
                ModuleConfig(os.fspath(handle), **module),
                PreprocessConfig(**preprocess),
                DecodeConfig(**decode),
                EngineConfig(**engine),
            )
        )

    @classmethod
    def choose(cls, spec: EmbedderSpec) -> Embedder:
        """Chooses and compiles the engine of a spec; the `spec` of the returned embedder names the chosen engine.

        Raises:
          ModuleError: the module cannot be used.
        """
        source = spec.source
        engine = choose_engine(source) if isinstance(source, ModuleFunction) else source.load()
        return cls.with_engine(spec.with_engine_name(engine.name), engine)

    @classmethod
    def load(cls, spec: EmbedderSpec) -> Embedder:
        """Loads the engine that a spec names; for workers.

        Raises:
          ModuleError: the module cannot be found or loaded, or has another digest.
        """
        started = time.monotonic()
        engine = spec.source.load()
        _log.info(
            "process %d loaded the module in %.1f s, engine %s", os.getpid(), time.monotonic() - started, engine.name
        )
        return cls.with_engine(spec, engine)

    @classmethod
    def with_engine(cls, spec: EmbedderSpec, engine: Engine) -> Embedder:
        """Returns the embedder of a spec for an engine that is already compiled."""
        threads = THREADS_PER_CORE * (spec.source.threads or usable_cores())
        return cls(
            engine,
            spec.decoder,
            normalize=spec.normalize,
            batch_size=spec.batch_size,
            threads=threads,
            spec=spec,
        )

    @property
    def dataset_spec(self) -> Spec:
        """The spec of a new data set with these vectors. Its certificate takes the time of a few images, once.

        Raises:
          UsageError: the embedder was made from an engine, without a spec.
        """
        return dataclasses.replace(self.uncertified_spec, certificate=self._certificate)

    @property
    def uncertified_spec(self) -> Spec:
        """The spec without its certificate, for a data set that has one already.

        Raises:
          UsageError: the embedder was made from an engine, without a spec.
        """
        if self.spec is None:
            raise UsageError(
                "this embedder was made from an engine and has no spec; make it with Embedder.choose(spec)"
            )
        engine = self.engine
        return self.spec.dataset_spec(dimension=engine.dimension, engine=engine.name, parity=engine.parity)

    @functools.cached_property
    def _certificate(self) -> Certificate | None:
        if self.spec is None or not isinstance(self.spec.source, ModuleFunction):
            return None
        with timed("of that, comparing the vectors of probe images"):
            return certify(self.engine, self.spec.decoder)

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the threads after their current groups."""
        self._feeder.close()

    def embed(self, records: Sequence[ImageRecord]) -> EmbeddingBatch:
        """Embeds a few records and waits for them."""
        groups = [records[start : start + self.group_size] for start in range(0, len(records), self.group_size)]
        batches = [self.result(future) for future in [self.submit(group) for group in groups]]
        return EmbeddingBatch(
            tuple(rows for batch in batches for rows in batch.rows),
            tuple(failure for batch in batches for failure in batch.failures),
            tuple(source for batch in batches for source in batch.sources),
            tuple(damaged for batch in batches for damaged in batch.damaged),
        )

    def submit(self, records: Sequence[ImageRecord]) -> Future[EmbeddingBatch]:
        """Embeds up to `group_size` records in the background; waits while too many bytes are in flight."""
        future = self._feeder.submit(records)
        if self._is_first:
            self._is_first = False
            future.add_done_callback(
                lambda _: log_step("from there to the first batch", time.monotonic() - self._loaded)
            )
        return future

    def result(self, future: Future[EmbeddingBatch]) -> EmbeddingBatch:
        """Waits for the result of `submit` and returns it; needs no later records."""
        return self._feeder.result(future)

    def stream(self, records: Iterable[ImageRecord]) -> Iterator[EmbeddingBatch]:
        """Embeds any number of records, in order, with a bounded number in flight."""
        batches = BatchesInFlight(self)
        for record in records:
            yield from batches.add(record)
        yield from batches.drain()


class BatchesInFlight:
    """Groups one stream of records and keeps a bounded number of groups in flight.

    Not thread-safe: each thread has its own instance, with a shared `Embedder`.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._waiting: list[ImageRecord] = []
        self._waiting_bytes = 0
        self._futures: deque[Future[EmbeddingBatch]] = deque()

    def add(self, record: ImageRecord) -> Iterator[EmbeddingBatch]:
        """Adds one record; yields the completed batches, in input order."""
        self._waiting.append(record)
        self._waiting_bytes += len(record.image)
        if len(self._waiting) == self._embedder.group_size or self._waiting_bytes >= MAX_GROUP_BYTES:
            self._submit()
        while len(self._futures) > self._embedder.groups_in_flight or (self._futures and self._futures[0].done()):
            yield self._embedder.result(self._futures.popleft())

    def drain(self) -> Iterator[EmbeddingBatch]:
        """Yields all batches that are still in flight, in input order."""
        self._submit()
        while self._futures:
            yield self._embedder.result(self._futures.popleft())

    def _submit(self) -> None:
        if self._waiting:
            self._futures.append(self._embedder.submit(self._waiting))
            self._waiting, self._waiting_bytes = [], 0
