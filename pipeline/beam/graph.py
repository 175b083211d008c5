"""The whole pipeline, on one screen."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from pipeline.beam.embed import EmbedImages
from pipeline.beam.read import ReadImages
from pipeline.beam.write import WriteEmbeddings
from pipeline.core.settings import Compression, InputConfig
from pipeline.dataset.commit import WaveHeader
from pipeline.storage.locked import LockedDirectory


@dataclass(frozen=True)
class WaveJob:
    """Everything that the pipeline of one wave is built from.

    Attributes:
      header: of the wave; includes its plan.
      input: names of the features to read.
      max_image_bytes: an image file larger than this is a failure.
      output: the data set.
      formats: of the embeddings files.
      compression: of TFRecord files.
      embed: the transform that embeds, which workers share.
      spread: whether a reshuffle distributes the parts of files over several machines before they are read.
    """

    header: WaveHeader
    input: InputConfig
    max_image_bytes: int
    output: LockedDirectory
    formats: tuple[str, ...]
    compression: Compression
    embed: EmbedImages
    spread: bool


def build(root: beam.Pipeline, job: WaveJob) -> None:
    """Adds the transforms that read, embed and commit one wave to a pipeline."""
    spec = job.embed.dataset_spec
    read = ReadImages.from_plan(job.header.plan_files, job.input, job.max_image_bytes, spread=job.spread)
    records, counts = root | "ReadImages" >> read.counted()
    write = WriteEmbeddings(job.output, job.formats, job.compression, job.header, spec, counts)
    records | "EmbedImages" >> job.embed | "WriteEmbeddings" >> write
