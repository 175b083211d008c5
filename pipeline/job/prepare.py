"""Loads a module once before any worker starts, and stages it for remote workers."""

from __future__ import annotations

import dataclasses

from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions

from pipeline.beam import dataflow
from pipeline.beam import options as beam_options
from pipeline.beam.embed import EmbedImages
from pipeline.core.cores import usable_cores
from pipeline.embedding.embedder import Embedder
from pipeline.embedding.embedder_spec import EmbedderSpec
from pipeline.engines.base import ModuleFunction
from pipeline.engines.staging import stage_function


def load_module(spec: EmbedderSpec, options: PipelineOptions, *, certified: bool) -> EmbedImages:
    """Chooses the engine for a module and loads it, to check that it works; returns the transform that embeds.

    If the workers are threads of this process, they share the loaded module.

    Args:
      spec: of the module's function, decoding and preprocessing.
      options: Beam's.
      certified: see `EmbedImages.from_embedder`.

    Raises:
      ModuleError: the module cannot be used.
    """
    embedder = Embedder.choose(spec)
    embed = EmbedImages.from_embedder(embedder, certified=certified)
    if beam_options.runs_in_process(options):
        embed.shared.acquire(lambda: embedder)
    else:
        embedder.close()
    return embed


def bring_to_workers(embed: EmbedImages, options: PipelineOptions) -> EmbedImages:
    """Returns a transform whose module the workers can load; stages the module for workers on other machines.

    Raises:
      UsageError: the module cannot be copied.
    """
    location = beam_options.staging_location(options)
    function = embed.spec.source
    if location is None or not isinstance(function, ModuleFunction):
        return embed
    spec = dataclasses.replace(embed.spec, source=stage_function(function, location))
    return dataclasses.replace(embed, spec=spec)


def threads_per_process(options: PipelineOptions) -> int | None:
    """Returns the number of compute threads of each worker process; None for all cores that it finds.

    The worker processes of one machine share its cores.
    """
    direct = options.view_as(DirectOptions)
    if beam_options.is_direct(options):
        processes = 1 if beam_options.runs_in_process(options) else direct.direct_num_workers or usable_cores()
        return max(1, usable_cores() // processes)
    if beam_options.runner_name(options) in dataflow.RUNNERS:
        experiments = options.view_as(DebugOptions).experiments or ()
        # By default, Dataflow starts one process for each core of a worker.
        return None if "no_use_multiple_sdk_containers" in experiments else 1
    return None
