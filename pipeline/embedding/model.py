"""From a module's handle to what an embedder is made from: the function to call, the decoder and the engine."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.settings import DecodeConfig, EngineConfig, ModuleConfig, Normalization
from pipeline.engines.base import Engine, EngineSpec
from pipeline.engines.choice import choose_engine
from pipeline.hub.handles import resolve
from pipeline.images.decoder import ImageDecoder
from pipeline.savedmodel.module import ImageSignature, choose_signature, read_module
from pipeline.savedmodel.safety import check_operations


@dataclass(frozen=True)
class EmbedderSpec:
    """All that an `Embedder` is made from; it travels to the workers.

    Attributes:
      engine: what infers.
      decoder: how encoded bytes become pixels.
      batch_size: records that a thread takes at a time, or None for a choice that suits the engine.
      normalize: whether vectors are scaled to length 1 (`l2`) or not (`none`).
    """

    engine: EngineSpec
    decoder: ImageDecoder
    batch_size: int | None = None
    normalize: Normalization = "none"


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
class ChosenEmbedder:
    """What an embedder is made from, with its engine loaded, which shows that it works.

    Attributes:
      module: the module.
      decode_config: how its images are prepared.
      engine_config: how its vectors are computed, as it was asked for.
      spec: what workers load.
      engine: the engine.
      parity: relative difference of its vectors from TensorFlow's; None for TensorFlow itself.
    """

    module: ChosenModule
    decode_config: DecodeConfig
    engine_config: EngineConfig
    spec: EmbedderSpec
    engine: Engine
    parity: float | None


def choose_module(config: ModuleConfig) -> ChosenModule:
    """Finds the module of a run and the function of it to call, without loading it.

    Raises:
      ModuleError: the module cannot be found or trusted, or has no function that fits.
    """
    resolved = resolve(config.module, sha256=config.module_sha256)
    info = read_module(resolved.path)
    check_operations(resolved.handle, info.unsafe_operations, allow=config.allow_unsafe_module)
    signature = choose_signature(
        info,
        signature=config.signature,
        output_key=config.output_key,
        image_size=config.image_size,
    )
    return ChosenModule(resolved.handle, resolved.path, resolved.sha256, signature)


def load_embedder(
    chosen: ChosenModule, decode: DecodeConfig, engine: EngineConfig, *, threads: int | None = None
) -> ChosenEmbedder:
    """Chooses the engine for a module and loads it.

    Args:
      chosen: the module.
      decode: how images are decoded.
      engine: what computes.
      threads: how many threads compute at a time; None for all cores that the process may use.

    Raises:
      ModuleError: the module cannot be used.
    """
    found = choose_engine(
        engine.engine,
        EngineSpec(
            name=engine.engine,
            module_path=chosen.path,
            module_sha256=chosen.sha256,
            signature=chosen.signature,
            precision=engine.precision,
            threads=threads,
        ),
    )
    decoder = ImageDecoder(
        height=chosen.signature.height,
        width=chosen.signature.width,
        decode=decode.decode,
        exif_orientation=decode.exif_orientation,
        max_pixels=decode.max_pixels,
        max_image_bytes=decode.max_image_bytes,
    )
    spec = EmbedderSpec(found.spec, decoder, batch_size=engine.batch_size, normalize=engine.normalize)
    return ChosenEmbedder(chosen, decode, engine, spec, found.engine, found.parity)


def choose_embedder(handle: str | os.PathLike[str], **settings: Any) -> ChosenEmbedder:
    """Finds and loads a module.

    Args:
      handle: as in `--module`.
      **settings: other fields of `pipeline.core.settings.ModuleConfig`, `DecodeConfig` and `EngineConfig`.

    Raises:
      UsageError: a setting is unknown or cannot be honoured.
      ModuleError: the module cannot be found, trusted or used.
    """
    sections = (ModuleConfig, DecodeConfig, EngineConfig)
    names = [{item.name for item in dataclasses.fields(section)} for section in sections]
    unknown = sorted(set(settings) - set().union(*names))
    if unknown:
        raise UsageError(f"unknown setting '{unknown[0]}'; expected some of {', '.join(sorted(set().union(*names)))}")
    module, decode, engine = ({name: value for name, value in settings.items() if name in known} for known in names)
    chosen = choose_module(ModuleConfig(os.fspath(handle), **module))
    return load_embedder(chosen, DecodeConfig(**decode), EngineConfig(**engine))
