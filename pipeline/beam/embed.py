"""`EmbedImages`: turns records into rows; all threads of a worker share one embedder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.beam.progress import NAMESPACE, WorkerTally
from pipeline.beam.worker_errors import carry_causes
from pipeline.core.errors import UsageError
from pipeline.core.failures import Failure
from pipeline.core.quiet import ignore_pillow_warnings
from pipeline.core.records import EmbeddingBatch, ImageRecord
from pipeline.core.settings import Normalization
from pipeline.embedding.dataset_spec import Spec
from pipeline.embedding.embedder import BatchesInFlight, Embedder
from pipeline.embedding.embedder_spec import EmbedderSpec, OwnEngine
from pipeline.embedding.tally import Tally
from pipeline.engines.base import Engine
from pipeline.images.decoder import ImageDecoder
from pipeline.images.resize import resize_in_calling_thread

LOADS_COUNTER = "embedder-loads"


@dataclass
class EmbedImages(beam.PTransform):
    """Embeds a bounded PCollection of `ImageRecord`, and passes each `Failure` on.

    Returns a PCollection of `EmbeddingBatch`. Each worker process loads the module once: all its threads,
    bundles and stages share one `Embedder`.

    Attributes:
      spec: settings from which each worker loads the embedder.
      shared: handle of the embedder. Pipelines of one process with the same handle load the module once.
      dataset_spec: describes the vectors, for `WriteEmbeddings`; None if unknown.
    """

    spec: EmbedderSpec
    shared: Shared = field(default_factory=Shared)
    dataset_spec: Spec | None = None

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    @classmethod
    def from_module(cls, handle: str | os.PathLike[str], **settings: Any) -> EmbedImages:
        """Embeds with a module: `EmbedImages.from_module("module.tar.gz", normalize="l2")`.

        This call loads the module once, to choose its engine. Each worker process then loads it again, from the
        same path.

        Args:
          handle: as in `--module`.
          **settings: other fields of `pipeline.core.settings.ModuleConfig`, `PreprocessConfig`, `DecodeConfig` and
            `EngineConfig`.

        Raises:
          UsageError: a setting is unknown or cannot be honoured.
          ModuleError: the module cannot be found, trusted or used.
        """
        with Embedder.from_module(handle, **settings) as embedder:
            return cls.from_embedder(embedder)

    @classmethod
    def from_engine(
        cls,
        make: Callable[[], Engine],
        *,
        name: str,
        height: int,
        width: int,
        normalize: Normalization = "none",
    ) -> EmbedImages:
        """Embeds with your own engine: `EmbedImages.from_engine(MyEngine, name="mine", height=224, width=224)`.

        Args:
          make: returns the engine. It is called here once and then once in each worker process; any picklable
            callable, such as a class.
          name: of the engine, in the spec of a data set. Vectors of engines with different names count as not
            comparable.
          height: of the images that the engine takes, in pixels.
          width: of the images, in pixels.
          normalize: `l2` scales each vector to length 1.
        """
        decoder = ImageDecoder(height=height, width=width)
        spec = EmbedderSpec(OwnEngine(make, name), decoder, normalize=normalize)
        with Embedder.choose(spec) as embedder:
            return cls.from_embedder(embedder)

    @classmethod
    def from_embedder(cls, embedder: Embedder, *, certified: bool = True) -> EmbedImages:
        """Embeds with the settings of a loaded embedder; workers load their own.

        Args:
          embedder: the embedder.
          certified: whether the spec has a certificate; only that of a new data set needs one.

        Raises:
          UsageError: the embedder has no spec.
        """
        dataset_spec = embedder.dataset_spec if certified else embedder.uncertified_spec
        assert embedder.spec is not None
        return cls(embedder.spec, dataset_spec=dataset_spec)

    def process_tally(self) -> Tally:
        """Returns what the embedder of this process has counted; zeros if this process has none."""
        embedder: Embedder | None = self.shared.acquire(lambda: None)
        return embedder.tally.value if embedder is not None else Tally()

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        """Applies the transform.

        Raises:
          UsageError: the PCollection has windows; a batch holds records of one window only.
        """
        if not isinstance(records.windowing.windowfn, GlobalWindows):
            raise UsageError(
                f"EmbedImages got a PCollection with {type(records.windowing.windowfn).__name__}; "
                "expected the global window; apply beam.WindowInto(GlobalWindows()) first"
            )
        return records | "Embed" >> beam.ParDo(_EmbedFn(self.spec, self.shared))


@carry_causes
class _EmbedFn(beam.DoFn):
    def __init__(self, spec: EmbedderSpec, shared: Shared) -> None:
        self._spec = spec
        self._shared = shared
        self._loads = Metrics.counter(NAMESPACE, LOADS_COUNTER)
        self._tally = WorkerTally()

    def setup(self) -> None:
        ignore_pillow_warnings()
        resize_in_calling_thread()
        # The counter increases in `start_bundle`: Beam keeps counts only while it processes a bundle.
        self._loaded = False
        self._embedder = self._shared.acquire(self._load)

    def _load(self) -> Embedder:
        self._loaded = True
        return Embedder.load(self._spec)

    def start_bundle(self) -> None:
        if self._loaded:
            self._loads.inc()
            self._loaded = False
        self._batches = BatchesInFlight(self._embedder)
        self._encoded_bytes = 0

    def process(self, record: ImageRecord | Failure) -> Iterator[EmbeddingBatch]:
        if isinstance(record, Failure):
            yield self._counted(EmbeddingBatch((), (record,), ()))
        else:
            self._encoded_bytes += len(record.image)
            for batch in self._batches.add(record):
                yield self._counted(batch)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for batch in self._batches.drain():
            yield WindowedValue(self._counted(batch), window.max_timestamp(), [window])

    def _counted(self, batch: EmbeddingBatch) -> EmbeddingBatch:
        tally = Tally(batch.num_rows, len(batch.failures), self._encoded_bytes)
        self._encoded_bytes = 0
        self._tally.add(tally, self._embedder.tally)
        return batch
