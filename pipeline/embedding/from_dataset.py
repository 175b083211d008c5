"""The embedder that made the vectors of a data set, from the data set's spec."""

from __future__ import annotations

import dataclasses

from pipeline.core.errors import OutputError
from pipeline.core.settings import DecodeConfig, EngineConfig, ModuleConfig, PreprocessConfig
from pipeline.embedding.dataset_spec import Spec, check_same_space
from pipeline.embedding.embedder import Embedder
from pipeline.embedding.embedder_spec import find_embedder
from pipeline.engines.registry import ENGINES
from pipeline.hub.preprocess import Context


def embedder_of(output: str, spec: Spec, *, module: str | None = None, allow_unsafe_module: bool = False) -> Embedder:
    """Returns an embedder whose vectors can be compared with those of a data set.

    Args:
      output: directory of the data set.
      spec: of the data set.
      module: the module's handle, if it is no longer that in the spec; its digest must be the same.
      allow_unsafe_module: see `--allow_unsafe_module`.

    Raises:
      OutputError: the vectors cannot be made again.
      ModuleError: the module cannot be found or used, or has another digest.
    """
    if spec.engine not in ENGINES.names:
        raise OutputError(
            f"{output} has the vectors of the custom engine {spec.engine}; expected one of {', '.join(ENGINES.names)}: "
            "only these can embed another image"
        )
    done = spec.preprocessing
    found = find_embedder(
        ModuleConfig(
            module or spec.module,
            module_sha256=spec.module_sha256,
            signature=spec.signature,
            output_key=spec.output_key,
            pooling=spec.pooling,  # type: ignore[arg-type]
            image_size=(done.height, done.width) if done.height else None,  # a module of encoded images has no size
            allow_unsafe_module=allow_unsafe_module,
        ),
        PreprocessConfig(),
        DecodeConfig(decode=done.decode, exif_orientation=done.exif_orientation, icc=done.icc),  # type: ignore[arg-type]
        EngineConfig(engine=spec.engine, precision=spec.precision, normalize=spec.normalization),  # type: ignore[arg-type]
        context=Context(lambda _: done.transform),
    )
    decoder = dataclasses.replace(found.decoder, transform=done.transform) if done.height else found.decoder
    embedder = Embedder.choose(dataclasses.replace(found, decoder=decoder))
    try:
        check_same_space(output, spec, embedder.uncertified_spec)
    except OutputError:
        embedder.close()
        raise
    return embedder
