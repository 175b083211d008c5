"""The first stage of embedding: encoded images to pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ImageError
from pipeline.core.failures import Failure, FailureReason
from pipeline.core.records import ImageRecord
from pipeline.engines.base import Engine
from pipeline.images.decoder import ImageDecoder


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Consecutive decoded images.

    Attributes:
      records: the records of the decoded images, without the encoded bytes, to free memory.
      pixels: the engine's dtype [N, height, width, 3], or N encoded images; a view of a reused buffer.
      failures: the records whose images could not be decoded.
    """

    records: tuple[ImageRecord, ...]
    pixels: NDArray[Any]
    failures: tuple[Failure, ...]


def make_buffer(engine: Engine, decoder: ImageDecoder, images: int) -> NDArray[Any]:
    """Returns a buffer for decoded images: the engine's dtype [images, height, width, 3], or objects [images]."""
    if engine.dtype == "encoded":
        return np.empty(images, object)
    return np.zeros((images, decoder.height, decoder.width, 3), engine.dtype)


def decode(records: Sequence[ImageRecord], decoder: ImageDecoder, buffer: NDArray[Any]) -> Iterator[DecodedImages]:
    """Decodes images into a buffer; yields them whenever the buffer is full, and at the end.

    A buffer of objects gets the encoded images that can be decoded.
    The generator overwrites the buffer after each yield.
    """
    decoded: list[ImageRecord] = []
    failures: list[Failure] = []
    for record in records:
        damage: list[str] = []
        try:
            if buffer.dtype == object:
                decoder(record.image, report_damage=damage.append)
                buffer[len(decoded)] = record.image
            else:
                decoder(record.image, out=buffer[len(decoded)], report_damage=damage.append)
        except ImageError as error:
            failures.append(Failure(record.key, record.source, "decode", _reason(error), str(error)))
            continue
        decoded.append(dataclasses.replace(record, image=b"", damage="; ".join(damage)))
        if len(decoded) == len(buffer):
            yield DecodedImages(tuple(decoded), buffer, tuple(failures))
            decoded, failures = [], []
    if decoded or failures:
        yield DecodedImages(tuple(decoded), buffer[: len(decoded)], tuple(failures))


def _reason(error: ImageError) -> FailureReason:
    return error.reason  # type: ignore[return-value]
