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
from pipeline.hub.module import ImageSignature, choose_signature, read_module
from pipeline.images import ImageDecoder
from pipeline.settings import ModuleConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenModule:
    """A module that was found, and its function that will be called.

    Attributes:
      handle: as it was asked for.
      path: its directory.
      sha256: its digest.
      signature: the function.
    """

    handle: str
    path: str
    sha256: str
    signature: ImageSignature


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


def choose_module(config: ModuleConfig) -> ChosenModule:
    """Finds the module of a run and the function of it to call, without loading it.

    Raises:
      ModuleError: the module cannot be found or trusted, or has no function that fits.
    """
    resolved = resolve(config.module, sha256=config.module_sha256)
    if resolved.handle.startswith("untrained:"):
        _log.warning(
            "WARNING: %s has random weights. Its vectors are for trying out this pipeline, and mean nothing.",
            resolved.handle,
        )
    signature = choose_signature(
        read_module(resolved.path),
        signature=config.signature,
        output_key=config.output_key,
        image_size=config.image_size,
    )
    return ChosenModule(resolved.handle, resolved.path, resolved.sha256, signature)


def load_module(chosen: ChosenModule, config: RunConfig, options: PipelineOptions) -> PreparedModule:
    """Loads a module, which shows that it works.

    Raises:
      ModuleError: the module cannot be used.
    """
    signature = chosen.signature
    decoder = ImageDecoder(
        height=signature.height,
        width=signature.width,
        decode=config.decode.decode,
        exif_orientation=config.decode.exif_orientation,
        max_pixels=config.decode.max_pixels,
        max_image_bytes=config.decode.max_image_bytes,
    )
    embedder_spec = EmbedderSpec(
        module_path=chosen.path,
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
    return PreparedModule(embedder_spec, make_spec(chosen, config, embedder.engine.dimension), shared)


def make_spec(chosen: ChosenModule, config: RunConfig, dimension: int) -> Spec:
    """Returns what a data set says about the vectors of a module.

    Args:
      chosen: the module.
      config: how its images are prepared and its vectors normalised.
      dimension: length of a vector.
    """
    return Spec(
        module=chosen.handle,
        module_sha256=chosen.sha256,
        signature=chosen.signature.signature,
        output_key=chosen.signature.output_key,
        dimension=dimension,
        preprocessing=Preprocessing(
            height=chosen.signature.height,
            width=chosen.signature.width,
            decode=config.decode.decode,
            exif_orientation=config.decode.exif_orientation,
        ),
        normalization=config.engine.normalize,
    )
