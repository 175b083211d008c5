"""`WriteEmbeddings`: rows and failures to the files of a wave, and the wave to the data set."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.dataset import InputEntry, Manifest
from pipeline.records import EmbeddingBatch
from pipeline.settings import Compression
from pipeline.shards import StagedShard, WaveWriter, commit_wave


@dataclass
class WriteEmbeddings(beam.PTransform):
    """Writes a bounded PCollection of `EmbeddingBatch` as one wave of a data set.

    Each bundle writes files of its own into a staging directory; when all are done, one step gives
    them their names and commits the wave. Gives a PCollection of one `Manifest`.

    Attributes:
      output: directory of the data set, local or remote.
      wave: name of the wave.
      compression: of the embeddings files.
      inputs: the files that the wave covers.
      versions: of the packages that take part, for the manifest.
    """

    output: str
    wave: str = "00000"
    compression: Compression = "none"
    inputs: tuple[InputEntry, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lets Beam give the transform its label."""
        super().__init__()

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Applies the transform."""
        started = datetime.datetime.now(datetime.timezone.utc)
        return (
            batches
            | "Stage" >> beam.ParDo(_StageFn(self.output, self.wave, self.compression))
            | "Gather" >> beam.combiners.ToList()
            | "Commit" >> beam.Map(self._commit, started)
        )

    def _commit(self, staged: list[StagedShard], started: datetime.datetime) -> Manifest:
        return commit_wave(
            self.output,
            self.wave,
            self.inputs,
            staged,
            compression=self.compression,
            started=started,
            versions=self.versions,
        )


class _StageFn(beam.DoFn):
    def __init__(self, output: str, wave: str, compression: Compression) -> None:
        self._output = output
        self._wave = wave
        self._compression = compression
        self._writer: WaveWriter | None = None

    def start_bundle(self) -> None:
        if self._writer is not None:  # the bundle before this one failed
            self._writer.abandon()
        self._writer = WaveWriter(self._output, self._wave, self._compression)

    def process(self, batch: EmbeddingBatch) -> Iterator[StagedShard]:
        assert self._writer is not None
        yield from self._writer.add(batch)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        assert self._writer is not None
        window = GlobalWindow()
        for shard in self._writer.close():
            yield WindowedValue(shard, window.max_timestamp(), [window])
        self._writer = None
