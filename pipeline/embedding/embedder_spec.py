"""From a module's handle to the spec of an embedder.

Three classes represent a module: `Module` is the resolved module on disk, `ModuleFunction` one of its functions with
an engine, and `Embedder` the loaded result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.settings import DecodeConfig, EngineConfig, ModuleConfig, Normalization
from pipeline.embedding.dataset_spec import Preprocessing, Spec
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.hub.resolve import resolve_module
from pipeline.images.decoder import ImageDecoder
from pipeline.images.versions import decoder_versions
from pipeline.savedmodel.module import choose_signature
from pipeline.savedmodel.safety import check_operations


@dataclass(frozen=True)
class OwnEngine:
    """A custom engine, in the place of a module's function.

    Attributes:
      make: returns the engine, once in each worker process; any callable that can be pickled, such as a class.
      handle: name of the engine in the spec of a data set, in the place of a module's handle.
      threads: number of cores to use for decoding; None for all cores that the process may use.
    """

    make: Callable[[], Engine]
    handle: str
    threads: int | None = None

    def load(self) -> Engine:
        """Returns the engine."""
        return self.make()


@dataclass(frozen=True)
class EmbedderSpec:
    """Everything that a worker needs to load an `Embedder`.

    Attributes:
      source: loads the engine.
      decoder: turns encoded bytes into pixels.
      batch_size: records in a group, or None for the engine's default.
      normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
    """

    source: ModuleFunction | OwnEngine
    decoder: ImageDecoder
    batch_size: int | None = None
    normalize: Normalization = "none"

    @classmethod
    def of(cls, function: ModuleFunction, decode: DecodeConfig, engine: EngineConfig) -> EmbedderSpec:
        """Returns the spec of a module's function under some settings."""
        decoder = ImageDecoder(
            height=function.signature.height,
            width=function.signature.width,
            decode=decode.decode,
            exif_orientation=decode.exif_orientation,
            max_pixels=decode.max_pixels,
            max_image_bytes=decode.max_image_bytes,
            on_damaged=decode.on_damaged,
            icc=decode.icc,
        )
        return cls(function, decoder, engine.batch_size, engine.normalize)

    def dataset_spec(self, *, dimension: int, engine: str, parity: float | None) -> Spec:
        """Returns the spec of a data set with these vectors.

        Args:
          dimension: length of a vector.
          engine: name of the engine that computes the vectors.
          parity: see `Spec`.
        """
        source, decoder = self.source, self.decoder
        function = source if isinstance(source, ModuleFunction) else None
        return Spec(
            module=source.handle,
            module_sha256=function.sha256 if function else "",
            signature=function.signature.signature if function else "",
            output_key=function.signature.output_key if function else "",
            dimension=dimension,
            preprocessing=Preprocessing(
                height=decoder.height,
                width=decoder.width,
                decode=decoder.decode,
                exif_orientation=decoder.exif_orientation,
                icc=decoder.icc,
            ),
            normalization=self.normalize,
            engine=engine,
            precision=function.precision if function else "float32",
            parity=parity,
            decoders=decoder_versions(),
        )

    def with_engine_name(self, name: str) -> EmbedderSpec:
        """Returns the spec with the name of the chosen engine."""
        if isinstance(self.source, OwnEngine):
            return self
        return dataclasses.replace(self, source=dataclasses.replace(self.source, engine=name))


def find_function(module: ModuleConfig, engine: EngineConfig, *, threads: int | None = None) -> ModuleFunction:
    """Resolves a module and chooses its function, without loading the module.

    Raises:
      ModuleError: the module cannot be found or trusted, or has no suitable function.
    """
    found = resolve_module(module.module, sha256=module.module_sha256)
    check_operations(found.handle, found.unsafe_operations, allow=module.allow_unsafe_module)
    signature = choose_signature(
        found,
        signature=module.signature,
        output_key=module.output_key,
        image_size=module.image_size,
    )
    return ModuleFunction(
        handle=found.handle,
        path=found.path,
        sha256=found.sha256,
        signature=signature,
        engine=engine.engine,
        precision=engine.precision,
        threads=threads,
        batch_size=engine.batch_size,
    )
