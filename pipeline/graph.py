"""The whole pipeline, on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.utils.shared import Shared

from pipeline.dataset import InputEntry
from pipeline.embedder import EmbedderSpec
from pipeline.plan import InputFile, make_tasks
from pipeline.settings import Compression, DecodeConfig, InputConfig
from pipeline.transforms.embed import EmbedImages
from pipeline.transforms.read import ReadImages
from pipeline.transforms.write import WriteEmbeddings


@dataclass(frozen=True)
class Wave:
    """One pipeline's worth of work.

    Attributes:
      name: of the wave, in file names.
      files: what it reads.
    """

    name: str
    files: Sequence[InputFile]


def build(
    root: beam.Pipeline,
    wave: Wave,
    *,
    input: InputConfig,  # noqa: A002
    decode: DecodeConfig,
    output: str,
    compression: Compression,
    spec: EmbedderSpec,
    shared: Shared,
    versions: Mapping[str, str],
) -> None:
    """Adds to a pipeline all that reads, embeds and commits one wave."""
    covered = tuple(InputEntry(file.path, file.size_bytes, file.mtime_s) for file in wave.files)
    (
        root
        | "ReadImages" >> ReadImages(make_tasks(wave.files), input, decode.max_image_bytes)
        | "EmbedImages" >> EmbedImages(spec, shared)
        | "WriteEmbeddings" >> WriteEmbeddings(output, wave.name, compression, covered, versions)
    )
