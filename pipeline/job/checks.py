"""Checks before a run starts: its settings, and its output directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import options as beam_options
from pipeline.core.config import RunConfig
from pipeline.core.console import describe_os_error
from pipeline.core.errors import OutputError
from pipeline.core.records import ImageRecord
from pipeline.core.timing import timed
from pipeline.dataset import metadata, ownership
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.embedding.embedder_spec import EmbedderSpec, find_embedder
from pipeline.engines.base import ModuleFunction
from pipeline.hub.preprocess import Context
from pipeline.images.transform import ImageTransform
from pipeline.inputs.base import ReadSettings
from pipeline.inputs.find import find_inputs
from pipeline.inputs.input_table import InputTable
from pipeline.inputs.probe import check_images, check_records
from pipeline.inputs.tasks import make_tasks, read_tasks
from pipeline.job.prepare import threads_per_process
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedRun:
    """A run after the checks that need neither its data set nor a loaded module.

    Attributes:
      options: Beam's.
      output: directory of the data set, absolute if it is local.
      files: all inputs that the data set should cover.
      embedder: the module's function, decoding, preprocessing and batch size; the engine is not chosen yet.
    """

    options: PipelineOptions
    output: str
    files: InputTable
    embedder: EmbedderSpec


def check_run(config: RunConfig) -> CheckedRun:
    """Finds the inputs and the module of a run, and checks that the request can be fulfilled.

    Raises:
      UsageError: the request cannot be fulfilled.
    """
    options = beam_options.parse_beam_args(config.beam_args)
    beam_options.check_options(options)
    FileSystems.set_options(options)  # otherwise Beam reads them from the command line of this process
    output = filesystem.absolute(config.output.output)
    with timed("finding the inputs"):
        files = find_inputs(config.input, ownership.outputs_in(output), other_dataset_in=ownership.other_dataset_in)
        check_records(files)
        files = check_images(files, ReadSettings(config.input, config.decode.max_image_bytes))
    with timed("finding the module"):
        embedder = find_embedder(
            config.module,
            config.preprocess,
            config.decode,
            config.engine,
            threads=threads_per_process(options),
            context=Context(lambda sha256: _existing_transform(config, sha256), lambda: _some_images(config, files)),
        )
    check_directory(filesystem.normalize(config.output.output))
    return CheckedRun(options, output, files, embedder)


def _existing_transform(config: RunConfig, sha256: str) -> ImageTransform | None:
    """Returns the transform of the data set that a run extends, if it has the module of this digest."""
    if config.execution.overwrite:
        return None
    check_directory(filesystem.normalize(config.output.output))
    spec = metadata.read_spec(filesystem.absolute(config.output.output))
    return spec.preprocessing.transform if spec is not None and spec.module_sha256 == sha256 else None


def _some_images(config: RunConfig, files: InputTable) -> Iterator[bytes]:
    """Yields encoded images of the input, one after the other."""
    settings = ReadSettings(config.input, config.decode.max_image_bytes)
    for file in files:
        for item in read_tasks(make_tasks([file]), settings):
            if isinstance(item, ImageRecord):
                yield item.image


def check_directory(output: str) -> None:
    """Checks that a path can be a directory, and that its store can be reached.

    Raises:
      OutputError: the path is a file, or the store cannot be used.
    """
    if filesystem.is_remote(output):
        try:
            filesystem.exists(filesystem.join(output, metadata.SPEC_NAME))
        except OSError as error:
            raise OutputError(f"--output={output} cannot be used: {describe_os_error(error)}") from error
    elif os.path.exists(output) and not os.path.isdir(output):
        raise OutputError(f"--output={output} is a file; expected a directory")


def check_output(
    config: RunConfig, output: str, manifests: Iterable[metadata.Manifest], embedder: EmbedderSpec
) -> Spec | None:
    """Returns the spec of the data set that a run extends, or None if the run starts a new one.

    Leaves out the checks that need the loaded module.

    Args:
      config: of the run.
      output: directory of the data set.
      manifests: of the data set.
      embedder: of the run.

    Raises:
      OutputError: the data set has another kind of vectors or other file formats, or lacks its spec.
    """
    if config.execution.overwrite:
        return None
    existing = metadata.read_spec(output)
    manifests = metadata.live(manifests)
    if existing is None:
        if manifests:
            raise OutputError(
                f"--output={output} has manifests but no {metadata.SPEC_NAME}, so the kind of its vectors is unknown; "
                "put it back, or start from nothing with --overwrite"
            )
        return None
    function = embedder.source
    assert isinstance(function, ModuleFunction)
    expected = embedder.dataset_spec(
        dimension=function.signature.dimension or existing.dimension,
        engine=existing.engine if function.engine == "auto" else function.engine,
        parity=existing.parity,
    )
    check_same_space(output, existing, expected)
    formats = {entry.format for manifest in manifests for entry in manifest.outputs if entry.kind == "embeddings"}
    if formats and formats != set(config.output.output_format):
        raise OutputError(
            f"--output={output} holds its rows as {','.join(sorted(formats))}, and this run would write "
            f"{','.join(sorted(config.output.output_format))}; name the same --output_format, or replace it with "
            "--overwrite"
        )
    others = {manifest.key_feature for manifest in manifests} - {config.input.key_feature}
    if others:
        named = ", ".join(f"--key_feature={name}" if name else "no --key_feature" for name in sorted(others, key=str))
        _log.warning("%s has rows that were read with %s; they keep their keys", output, named)
    return existing
