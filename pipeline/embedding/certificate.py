"""The certificate of a data set: how near its vectors are to those of the framework that the module is made for."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ModuleError
from pipeline.embedding.dataset_spec import Certificate
from pipeline.engines.base import Engine
from pipeline.engines.batches import in_batches
from pipeline.engines.parity import encoded_probes, plain_pixels, relative_difference
from pipeline.images.decoder import ImageDecoder
from pipeline.images.transform import ImageTransform

_log = logging.getLogger(__name__)

_ENCODED_SIZE = 128


def certify(engine: Engine, decoder: ImageDecoder) -> Certificate:
    """Embeds the probe images from their encoded bytes on, and compares the vectors with those of the reference.

    With the plain transform, the reference gets pixels that are computed independently of this pipeline's decoder.

    Args:
      engine: of a module's function.
      decoder: that feeds the engine.
    """
    decoder = dataclasses.replace(decoder, max_pixels=sys.maxsize, max_image_bytes=sys.maxsize)
    fed, expected = _images(engine, decoder)
    vectors = in_batches(engine.infer, fed, engine.batch_size)
    difference = None
    try:
        reference = engine.reference_vectors(expected)
    except (ModuleError, ImportError) as error:
        _log.warning("the vectors cannot be compared with those of %s: %s", engine.reference, error)
        reference = None
    if reference is not None:
        difference = float(f"{relative_difference(vectors, reference):.1e}")
    return Certificate(
        reference=engine.reference if reference is not None else None,
        difference=difference,
        probe_sha256=hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest(),
    )


def _images(engine: Engine, decoder: ImageDecoder) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the probe images as this pipeline feeds them to the engine, and as the reference gets them."""
    if engine.dtype == "encoded":
        encoded = np.array(encoded_probes(_ENCODED_SIZE, _ENCODED_SIZE), object)
        return encoded, encoded
    height, width = decoder.height, decoder.width
    probes = encoded_probes(height, width)
    fed = np.zeros((len(probes), height, width, 3), engine.dtype)
    for data, pixels in zip(probes, fed, strict=True):
        decoder(data, out=pixels)
    if decoder.transform == ImageTransform():
        return fed, plain_pixels(height, width)
    # The tests compare other transforms with the libraries that they stand for.
    exact = dataclasses.replace(decoder, decode="exact")
    return fed, np.stack([exact(data, out=np.zeros(fed.shape[1:], engine.dtype)) for data in probes])
