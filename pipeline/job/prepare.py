"""Getting a module ready: resolved, checked and loaded once, before any worker starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions
from apache_beam.utils.shared import Shared

from pipeline.beam import options as beam_options
from pipeline.core.config import RunConfig
from pipeline.core.cores import usable_cores
from pipeline.embedding.embedder import Embedder
from pipeline.embedding.model import ChosenModule, EmbedderSpec, load_embedder
from pipeline.embedding.spec import Spec, spec_of
from pipeline.hub.staging import stage_module

_DATAFLOW_RUNNERS = ("DataflowRunner", "TestDataflowRunner")


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


def load_module(chosen: ChosenModule, config: RunConfig, options: PipelineOptions) -> PreparedModule:
    """Chooses the engine for a module and loads it, which shows that it works.

    Raises:
      ModuleError: the module cannot be used.
    """
    model = load_embedder(chosen, config.decode, config.engine, threads=threads_per_process(options))
    shared = Shared()
    if beam_options.runs_in_process(options):
        shared.acquire(lambda: Embedder.with_engine(model.spec, model.engine))
    return PreparedModule(model.spec, spec_of(model), shared)


def bring_to_workers(module: PreparedModule, options: PipelineOptions) -> PreparedModule:
    """Returns a module that workers can load; where they run on other machines, after it was copied for them.

    Raises:
      UsageError: it cannot be copied.
    """
    location = beam_options.staging_location(options)
    if location is None:
        return module
    engine = module.embedder_spec.engine
    engine = dataclasses.replace(engine, module_path=stage_module(engine.module_path, engine.module_sha256, location))
    return dataclasses.replace(module, embedder_spec=dataclasses.replace(module.embedder_spec, engine=engine))


def threads_per_process(options: PipelineOptions) -> int | None:
    """Returns how many threads each worker process may compute with; None for as many as it finds cores.

    The workers of one machine share its cores.
    """
    direct = options.view_as(DirectOptions)
    if beam_options.is_direct(options):
        processes = 1 if beam_options.runs_in_process(options) else direct.direct_num_workers or usable_cores()
        return max(1, usable_cores() // processes)
    if beam_options.runner_name(options) in _DATAFLOW_RUNNERS:
        experiments = options.view_as(DebugOptions).experiments or ()
        # Dataflow starts a process for each core of a worker, unless told otherwise.
        return None if "no_use_multiple_sdk_containers" in experiments else 1
    return None
