"""`WriteEmbeddings`: writes rows and failures to the files of a wave, and commits the wave."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.beam.worker_errors import carry_cause, carry_causes
from pipeline.core.errors import UsageError
from pipeline.core.json import to_json
from pipeline.core.records import EmbeddingBatch
from pipeline.core.settings import Compression
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import Manifest
from pipeline.dataset.sinks.base import Sink, SinkSettings, make_sinks
from pipeline.dataset.writer import BundleWriter, StagedBundle
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.storage import filesystem


@dataclass
class WriteEmbeddings(beam.PTransform):
    """Writes a bounded PCollection of `EmbeddingBatch` as one wave of a data set.

    Each bundle writes separate files to a staging directory. After all bundles, one step moves the files to
    their final names and commits the wave. Returns a PCollection of one `Manifest`. The caller is responsible
    for the lock of the data set, see `pipeline.job.execute`.

    Attributes:
      output: directory of the data set, local or remote.
      formats: of the rows; names as in `--output_format`, or sinks.
      compression: of TFRecord files.
      header: of the wave, for its manifest; by default, the wave gets the next number and lists no inputs.
      spec: describes the vectors, such as `EmbedImages.dataset_spec`. A new data set gets this spec; an existing
        one must have the same. None: not checked.
    """

    output: str
    formats: Sequence[str | Sink] = ("tfrecord",)
    compression: Compression = "none"
    header: WaveHeader | None = None
    spec: Spec | None = None

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label, and refuses formats that do not exist."""
        super().__init__()
        if isinstance(self.formats, str):
            raise UsageError(f"WriteEmbeddings got formats={self.formats!r}; expected a tuple of names or sinks")
        self._sinks = make_sinks(self.formats)
        if self.compression not in get_args(Compression):
            raise UsageError(
                f"WriteEmbeddings got compression={self.compression!r}; expected one of {get_args(Compression)}"
            )

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Applies the transform.

        Raises:
          OutputError: the directory holds vectors of another spec.
        """
        output = filesystem.normalize(self.output)
        is_new = False
        if self.spec is not None:
            existing = metadata.read_spec(output)
            is_new = existing is None
            check_same_space(output, existing or self.spec, self.spec)
        spec_json = b"{}" if self.spec is None else to_json(self.spec)
        header = self.header or _next_header(output)
        settings = SinkSettings(self.compression, header.started, spec_json)
        staged = batches | "Stage" >> beam.ParDo(_StageFn(output, header.name, self._sinks, settings))
        # A wave without records has no staged files, but must be committed too.
        once = batches.pipeline | f"{self.label}/Once" >> beam.Impulse()
        new_spec = self.spec if is_new else None
        return once | "Commit" >> beam.Map(_commit, beam.pvalue.AsIter(staged), output, header, new_spec, self._sinks)


def _next_header(output: str) -> WaveHeader:
    name = metadata.next_wave(metadata.read_manifests(output))
    return WaveHeader(name, datetime.datetime.now(datetime.UTC), {})


@carry_cause
def _commit(
    _: bytes,
    staged: Iterable[StagedBundle],
    output: str,
    header: WaveHeader,
    new_spec: Spec | None,
    sinks: Sequence[Sink],
) -> Manifest:
    if new_spec is not None:
        metadata.write_spec(output, new_spec)
    return commit_wave(output, header, staged, sinks)


@carry_causes
class _StageFn(beam.DoFn):
    def __init__(self, output: str, wave: str, sinks: Sequence[Sink], settings: SinkSettings) -> None:
        self._output = output
        self._wave = wave
        self._sinks = sinks
        self._settings = settings
        self._writer: BundleWriter | None = None

    def start_bundle(self) -> None:
        self._abandon()
        self._writer = BundleWriter(self._output, self._wave, self._sinks, self._settings)

    def process(self, batch: EmbeddingBatch) -> None:
        with self._abandoned_on_error() as writer:
            writer.add(batch)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._abandoned_on_error() as writer:
            staged = writer.close()
        self._writer = None
        window = GlobalWindow()
        yield WindowedValue(staged, window.max_timestamp(), [window])

    def teardown(self) -> None:
        self._abandon()

    def _abandon(self) -> None:
        """Closes the files of a bundle that failed in another step, without finishing them."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    @contextlib.contextmanager
    def _abandoned_on_error(self) -> Iterator[BundleWriter]:
        """Closes the files of a bundle that fails; the runner retries the bundle from its start, or gives up."""
        assert self._writer is not None
        try:
            yield self._writer
        except BaseException:
            self._abandon()
            raise
