"""Getting a module ready: resolved, checked and loaded once, before any worker starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from pipeline import options as beam_options
from pipeline.config import RunConfig
from pipeline.dataset import Preprocessing, Spec
from pipeline.embedder import Embedder, EmbedderSpec
from pipeline.hub.handles import resolve
from pipeline.hub.module import choose_signature, read_module
from pipeline.images import ImageDecoder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedModule:
    """A module that is known to work, and what its vectors are.

    Attributes:
      embedder_spec: what workers load.
      dataset_spec: what the data set says about its vectors.
      shared: the handle through which the threads of a process share one embedder. In this process it
        is loaded already if the pipeline's workers are threads here.
    """

    embedder_spec: EmbedderSpec
    dataset_spec: Spec
    shared: Shared


def prepare_module(config: RunConfig, options: PipelineOptions) -> PreparedModule:
    """Resolves the module of a run and loads it, which shows that it works.

    Raises:
      ModuleError: the module cannot be found, trusted or used.
    """
    wanted = config.module
    resolved = resolve(wanted.module, sha256=wanted.module_sha256)
    if resolved.handle.startswith("untrained:"):
        _log.warning(
            "WARNING: %s has random weights. Its vectors are for trying out this pipeline, and mean nothing.",
            resolved.handle,
        )
    signature = choose_signature(
        read_module(resolved.path),
        signature=wanted.signature,
        output_key=wanted.output_key,
        image_size=wanted.image_size,
    )
    decoder = ImageDecoder(
        height=signature.height,
        width=signature.width,
        decode=config.decode.decode,
        exif_orientation=config.decode.exif_orientation,
        max_pixels=config.decode.max_pixels,
        max_image_bytes=config.decode.max_image_bytes,
    )
    embedder_spec = EmbedderSpec(
        module_path=resolved.path,
        signature=signature,
        decoder=decoder,
        engine=config.engine.engine,
        batch_size=config.engine.batch_size,
        normalize=config.engine.normalize,
    )
    shared = Shared()
    if beam_options.runs_in_process(options):
        embedder = shared.acquire(lambda: Embedder.load(embedder_spec))
    else:
        embedder = Embedder.load(embedder_spec)
    dataset_spec = Spec(
        module=resolved.handle,
        module_sha256=resolved.sha256,
        signature=signature.signature,
        output_key=signature.output_key,
        dimension=embedder.engine.dimension,
        preprocessing=Preprocessing(
            height=signature.height,
            width=signature.width,
            decode=config.decode.decode,
            exif_orientation=config.decode.exif_orientation,
        ),
        normalization=config.engine.normalize,
    )
    return PreparedModule(embedder_spec, dataset_spec, shared)
