"""What must hold of an output directory before a run may write to it."""

from __future__ import annotations

import logging
import os

from pipeline.core.config import RunConfig
from pipeline.core.console import describe_os_error
from pipeline.core.errors import OutputError
from pipeline.dataset import metadata
from pipeline.embedding.function import EmbedderSpec
from pipeline.embedding.spec import Spec, check_same_space
from pipeline.engines.base import ModuleFunction
from pipeline.storage import filesystem

_log = logging.getLogger(__name__)


def check_directory(output: str) -> None:
    """Makes sure that a path may name a directory, and that its store can be asked at all.

    Raises:
      OutputError: there is a file, or the store cannot be used.
    """
    if filesystem.is_remote(output):
        try:
            filesystem.exists(filesystem.join(output, metadata.SPEC_NAME))
        except OSError as error:
            raise OutputError(f"--output={output} cannot be used: {describe_os_error(error)}") from error
    elif os.path.exists(output) and not os.path.isdir(output):
        raise OutputError(f"--output={output} is a file; expected a directory")


def check_output(config: RunConfig, output: str, embedder: EmbedderSpec) -> Spec | None:
    """Returns the spec of the data set that a run is to go on with, or None if it is to begin one.

    What shows only when the module is loaded is not checked.

    Args:
      config: of the run.
      output: directory of the data set.
      embedder: the run's.

    Raises:
      OutputError: what is there is of another kind.
    """
    if config.output.overwrite:
        return None
    existing = metadata.read_spec(output)
    manifests = metadata.live(metadata.read_manifests(output))
    if existing is None:
        if manifests:
            raise OutputError(
                f"--output={output} has manifests but no {metadata.SPEC_NAME}, so that nobody knows what its vectors "
                "are; put it back, or start anew with --overwrite"
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
            f"{','.join(sorted(config.output.output_format))}; name the same --output_format, or start it anew with "
            "--overwrite"
        )
    others = {manifest.key_feature for manifest in manifests} - {config.input.key_feature}
    if others:
        named = ", ".join(f"--key_feature={name}" if name else "no --key_feature" for name in sorted(others, key=str))
        _log.warning("%s has rows that were read with %s; they keep their keys", output, named)
    return existing
