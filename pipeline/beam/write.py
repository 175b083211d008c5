"""`WriteEmbeddings`: rows and failures to the files of a wave, and the wave to the data set."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.core.errors import UsageError
from pipeline.core.records import EmbeddingBatch
from pipeline.core.settings import Compression, OutputFormat
from pipeline.dataset import metadata
from pipeline.dataset.commit import WaveHeader, commit_wave
from pipeline.dataset.metadata import Manifest
from pipeline.dataset.shards import StagedShard, WaveFormat, WaveWriter
from pipeline.embedding.spec import Spec, check_same_space
from pipeline.storage import filesystem


@dataclass
class WriteEmbeddings(beam.PTransform):
    """Writes a bounded PCollection of `EmbeddingBatch` as one wave of a data set.

    Each bundle writes files of its own into a staging directory; when all are done, one step gives
    them their names and commits the wave. Gives a PCollection of one `Manifest`. The data set's lock and
    what to read next are up to the caller, as `pipeline.job.run` does it.

    Attributes:
      output: directory of the data set, local or remote.
      formats: of the embeddings files.
      compression: of TFRecord files.
      header: what the manifest says of the wave; by default that it comes after all others and covers no files.
      spec: what the vectors are, such as `EmbedImages.dataset_spec`. The data set gets it, or must have the same.
    """

    output: str
    formats: tuple[OutputFormat, ...] = ("tfrecord",)
    compression: Compression = "none"
    header: WaveHeader | None = None
    spec: Spec | None = None

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label, and refuses formats that do not exist."""
        super().__init__()
        known = get_args(OutputFormat)
        if not self.formats or not set(self.formats) <= set(known):
            raise UsageError(f"WriteEmbeddings got formats={self.formats!r}; expected a tuple with some of {known}")
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
        spec_json = b"{}" if self.spec is None else metadata.to_json(self.spec)
        header = self.header or _next_header(output)
        wave_format = WaveFormat(self.formats, self.compression, header.started, spec_json)
        staged = batches | "Stage" >> beam.ParDo(_StageFn(output, header.name, wave_format))
        # A wave without any record has no staged files, and must be committed all the same.
        once = batches.pipeline | f"{self.label}/Once" >> beam.Impulse()
        new_spec = self.spec if is_new else None
        return once | "Commit" >> beam.Map(_commit, beam.pvalue.AsIter(staged), output, header, new_spec)


def _next_header(output: str) -> WaveHeader:
    name = metadata.next_wave(metadata.read_manifests(output))
    return WaveHeader(name, datetime.datetime.now(datetime.UTC), {})


def _commit(
    _: bytes, staged: Iterable[StagedShard], output: str, header: WaveHeader, new_spec: Spec | None
) -> Manifest:
    if new_spec is not None:
        metadata.write_spec(output, new_spec)
    return commit_wave(output, header, staged)


class _StageFn(beam.DoFn):
    def __init__(self, output: str, wave: str, wave_format: WaveFormat) -> None:
        self._output = output
        self._wave = wave
        self._format = wave_format
        self._writer: WaveWriter | None = None

    def start_bundle(self) -> None:
        self._abandon()
        self._writer = WaveWriter(self._output, self._wave, self._format)

    def process(self, batch: EmbeddingBatch) -> Iterator[StagedShard]:
        with self._abandoned_on_error() as writer:
            staged = writer.add(batch)
        yield from staged

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._abandoned_on_error() as writer:
            staged = writer.close()
        self._writer = None
        window = GlobalWindow()
        for shard in staged:
            yield WindowedValue(shard, window.max_timestamp(), [window])

    def teardown(self) -> None:
        self._abandon()

    def _abandon(self) -> None:
        """Closes the files of a bundle that another step has failed, without finishing them."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    @contextlib.contextmanager
    def _abandoned_on_error(self) -> Iterator[WaveWriter]:
        """Closes the files of a bundle that fails; the runner tries it again from its start, or gives up."""
        assert self._writer is not None
        try:
            yield self._writer
        except BaseException:
            self._abandon()
            raise
