"""`WriteEmbeddings`: writes rows and failures to the files of a wave, and commits the wave."""

from __future__ import annotations

import contextlib
import datetime
import time
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
from pipeline.dataset.ownership import write_spec
from pipeline.dataset.sinks.base import Sink, SinkSettings, make_sinks
from pipeline.dataset.writer import BundleWriter, StagedBundle
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.storage import filesystem
from pipeline.storage.locked import LockedDirectory

LOCK_CHECK_S = 30.0
"""Time between checks of a bundle that its run still holds the lock. A bundle may take hours, and Flink goes on with a
job after Beam's job server has cancelled it; the rows of such a job never count."""


@dataclass
class WriteEmbeddings(beam.PTransform):
    """Writes a bounded PCollection of `EmbeddingBatch` as one wave of a data set.

    Each bundle writes separate files to a staging directory. After all bundles, one step moves the files to
    their final names and commits the wave. Returns a PCollection of one `Manifest`.

    Attributes:
      output: directory of the data set, local or remote; or the right to change it, from `DatasetLock`. With a mere
        path, the caller ensures that nobody else writes there.
      formats: of the rows; names as in `--output_format`, or sinks.
      compression: of TFRecord files.
      header: of the wave, for its manifest; by default, the wave gets the next number and lists no inputs.
      spec: describes the vectors, such as `EmbedImages.dataset_spec`. A new data set gets this spec; an existing
        one must have the same. None: not checked.
      read_counts: numbers of records that were read, from `ReadImages.counted`. If they do not add up to the numbers of
        rows and failures, the wave is not committed. None: not checked.
    """

    output: str | LockedDirectory
    formats: Sequence[str | Sink] = ("tfrecord",)
    compression: Compression = "none"
    header: WaveHeader | None = None
    spec: Spec | None = None
    read_counts: beam.PCollection | None = None

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
        if isinstance(self.output, LockedDirectory):
            directory = self.output
        else:
            directory = LockedDirectory.without_lock(filesystem.normalize(self.output))
        output = directory.path
        is_new = False
        if self.spec is not None:
            existing = metadata.read_spec(output)
            is_new = existing is None
            check_same_space(output, existing or self.spec, self.spec)
        spec_json = b"{}" if self.spec is None else to_json(self.spec)
        header = self.header or _next_header(output, [sink.name for sink in self._sinks])
        settings = SinkSettings(self.compression, spec_json)
        staged = batches | "Stage" >> beam.ParDo(_StageFn(directory, header.name, self._sinks, settings))
        # A wave without records has no staged files, but must be committed too.
        once = batches.pipeline | f"{self.label}/Once" >> beam.Impulse()
        new_spec = self.spec if is_new else None
        read = None if self.read_counts is None else beam.pvalue.AsIter(self.read_counts)
        commit = _Commit(directory, header, new_spec, self._sinks)
        return once | "Commit" >> beam.Map(commit, beam.pvalue.AsIter(staged), read)


def _next_header(output: str, formats: Sequence[str]) -> WaveHeader:
    manifests = metadata.read_manifests(output)
    now = datetime.datetime.now(datetime.UTC)
    return WaveHeader(metadata.next_wave(manifests), now, {}, main_format=metadata.main_format_of(manifests, formats))


@dataclass(frozen=True)
class _Commit:
    """Commits a wave."""

    directory: LockedDirectory
    header: WaveHeader
    new_spec: Spec | None
    sinks: Sequence[Sink]

    @carry_cause
    def __call__(self, _: bytes, staged: Iterable[StagedBundle], read: Iterable[int] | None) -> Manifest:
        if self.new_spec is not None:
            write_spec(self.directory, self.new_spec)
        records_read = None if read is None else sum(read)
        manifest = commit_wave(self.directory, self.header, staged, self.sinks, records_read=records_read)
        if self.directory.is_handed_over:
            self.directory.release()
        return manifest


@carry_causes
class _StageFn(beam.DoFn):
    def __init__(self, directory: LockedDirectory, wave: str, sinks: Sequence[Sink], settings: SinkSettings) -> None:
        self._directory = directory
        self._wave = wave
        self._sinks = sinks
        self._settings = settings
        self._writer: BundleWriter | None = None

    def start_bundle(self) -> None:
        self._abandon()
        self._writer = BundleWriter(self._directory, self._wave, self._sinks, self._settings)
        self._checked = time.monotonic()

    def process(self, batch: EmbeddingBatch) -> None:
        with self._abandoned_on_error() as writer:
            if time.monotonic() - self._checked >= LOCK_CHECK_S:
                with contextlib.suppress(OSError):  # a store that does not answer now may answer the next time
                    self._directory.check()
                self._checked = time.monotonic()
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
