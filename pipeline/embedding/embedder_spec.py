"""From a module's handle to the spec of an embedder.

Three classes represent a module: `Module` is the resolved module on disk, `ModuleFunction` one of its functions with
an engine, and `Embedder` the loaded result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.settings import DecodeConfig, EngineConfig, ModuleConfig, Normalization, PreprocessConfig
from pipeline.embedding.dataset_spec import BY_MODULE, Preprocessing, Spec
from pipeline.engines.base import Engine, ModuleFunction
from pipeline.hub.preprocess import NO_CONTEXT, Context, choose_transform, size_of_transform
from pipeline.hub.resolve import resolve_module
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transform import ImageTransform
from pipeline.images.versions import decoder_versions
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.safety import check_operations
from pipeline.savedmodel.signatures import choose_signature


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
      decoder: turns encoded bytes into the network's input.
      batch_size: records in a group, or None for the engine's default.
      normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
    """

    source: ModuleFunction | OwnEngine
    decoder: ImageDecoder
    batch_size: int | None = None
    normalize: Normalization = "none"

    @classmethod
    def of(
        cls, function: ModuleFunction, transform: ImageTransform, decode: DecodeConfig, engine: EngineConfig
    ) -> EmbedderSpec:
        """Returns the spec of a module's function under some settings."""
        if function.signature.dtype == "uint8":
            # The adapted function takes values in [0, 1], and makes levels of them.
            transform = dataclasses.replace(transform, input_range=(0.0, 1.0))
        decoder = ImageDecoder(
            # A function of encoded images resizes them itself: the decoder only checks them.
            height=function.signature.height or 1,
            width=function.signature.width or 1,
            decode=decode.decode,
            exif_orientation=decode.exif_orientation,
            max_pixels=decode.max_pixels,
            max_image_bytes=decode.max_image_bytes,
            transform=transform,
            on_damaged=decode.on_damaged,
            icc=decode.icc,
        )
        return cls(function, decoder, engine.batch_size, engine.normalize)

    def dataset_spec(self, *, dimension: int, engine: str, parity: float | None) -> Spec:
        """Returns the spec of a data set with these vectors, without a certificate.

        Args:
          dimension: length of a vector.
          engine: name of the engine that computes the vectors.
          parity: see `Spec`.
        """
        source = self.source
        function = source if isinstance(source, ModuleFunction) else None
        signature = function.signature if function else None
        return Spec(
            module=source.handle,
            module_sha256=function.sha256 if function else "",
            signature=signature.signature if signature else "",
            output_key=signature.output_key if signature else "",
            dimension=dimension,
            preprocessing=BY_MODULE if signature and signature.is_encoded else Preprocessing.of(self.decoder),
            normalization=self.normalize,
            engine=engine,
            precision=function.precision if function else "float32",
            parity=parity,
            pooling=signature.pooling if signature else None,
            decoders=decoder_versions(),
        )

    def with_engine_name(self, name: str) -> EmbedderSpec:
        """Returns the spec with the name of the chosen engine."""
        if isinstance(self.source, OwnEngine):
            return self
        return dataclasses.replace(self, source=dataclasses.replace(self.source, engine=name))


def find_embedder(
    module: ModuleConfig,
    preprocess: PreprocessConfig,
    decode: DecodeConfig,
    engine: EngineConfig,
    *,
    threads: int | None = None,
    context: Context = NO_CONTEXT,
) -> EmbedderSpec:
    """Resolves a module, and chooses its function and the transform of its images; the engine is not chosen yet.

    Raises:
      ModuleError: the module cannot be found or trusted, or has no suitable function; or its transform is unknown.
      UsageError: the named transform cannot be honoured.
    """
    found = _find_module(module)
    function = _function(found, module, engine, threads, size_of_transform(found, preprocess))
    named = choose_transform(found, function.signature, preprocess, context)
    return EmbedderSpec.of(function, named.transform if named else ImageTransform(), decode, engine)


def find_function(module: ModuleConfig, engine: EngineConfig, *, threads: int | None = None) -> ModuleFunction:
    """Resolves a module and chooses its function, without loading the module.

    Raises:
      ModuleError: the module cannot be found or trusted, or has no suitable function.
    """
    return _function(_find_module(module), module, engine, threads)


def _find_module(module: ModuleConfig) -> Module:
    found = resolve_module(module.module, sha256=module.module_sha256)
    check_operations(found.handle, found.unsafe_operations, allow=module.allow_unsafe_module)
    return found


def _function(
    found: Module,
    module: ModuleConfig,
    engine: EngineConfig,
    threads: int | None,
    default_size: tuple[int, int] | None = None,
) -> ModuleFunction:
    signature = choose_signature(
        found,
        signature=module.signature,
        output_key=module.output_key,
        image_size=module.image_size,
        default_size=default_size,
        pooling=module.pooling,
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
        format=found.format,
        model_file=found.model_file,
    )
