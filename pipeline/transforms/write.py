"""`WriteEmbeddings`: rows and failures to the files of a wave, and the wave to the data set."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline import storage
from pipeline.commit import WaveHeader, commit_wave
from pipeline.dataset import Manifest
from pipeline.records import EmbeddingBatch
from pipeline.settings import Compression, OutputFormat
from pipeline.shards import StagedShard, WaveFormat, WaveWriter


@dataclass
class WriteEmbeddings(beam.PTransform):
    """Writes a bounded PCollection of `EmbeddingBatch` as one wave of a data set.

    Each bundle writes files of its own into a staging directory; when all are done, one step gives
    them their names and commits the wave. Gives a PCollection of one `Manifest`. The data set's spec, its lock
    and what to read next are up to the caller, as `pipeline.job` does it.

    Attributes:
      output: directory of the data set, local or remote.
      formats: of the embeddings files.
      compression: of TFRecord files.
      header: what the manifest says of the wave; by default that it is the first and covers no files.
      spec_json: the data set's spec, for the metadata of Parquet files.
    """

    output: str
    formats: tuple[OutputFormat, ...] = ("tfrecord",)
    compression: Compression = "none"
    header: WaveHeader | None = None
    spec_json: bytes = b"{}"

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Applies the transform."""
        output = storage.normalize(self.output)
        header = self.header or WaveHeader("00000", datetime.datetime.now(datetime.timezone.utc), {})
        wave_format = WaveFormat(self.formats, self.compression, header.started, self.spec_json)
        staged = batches | "Stage" >> beam.ParDo(_StageFn(output, header.name, wave_format))
        # A wave without any record has no staged files, and must be committed all the same.
        once = batches.pipeline | f"{self.label}/Once" >> beam.Impulse()
        return once | "Commit" >> beam.Map(_commit, beam.pvalue.AsIter(staged), output, header)


def _commit(_: bytes, staged: Iterable[StagedShard], output: str, header: WaveHeader) -> Manifest:
    return commit_wave(output, header, staged)


class _StageFn(beam.DoFn):
    def __init__(self, output: str, wave: str, wave_format: WaveFormat) -> None:
        self._output = output
        self._wave = wave
        self._format = wave_format
        self._writer: WaveWriter | None = None

    def start_bundle(self) -> None:
        self._writer = WaveWriter(self._output, self._wave, self._format)

    def process(self, batch: EmbeddingBatch) -> Iterator[StagedShard]:
        with self._abandoned_on_error() as writer:
            staged = writer.add(batch)
        yield from staged

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._abandoned_on_error() as writer:
            staged = writer.close()
        window = GlobalWindow()
        for shard in staged:
            yield WindowedValue(shard, window.max_timestamp(), [window])

    @contextlib.contextmanager
    def _abandoned_on_error(self) -> Iterator[WaveWriter]:
        """Closes the files of a bundle that fails; the runner tries it again from its start, or gives up."""
        assert self._writer is not None
        try:
            yield self._writer
        except BaseException:
            self._writer.abandon()
            raise
