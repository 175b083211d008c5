"""The encoder of tfx-bsl: an internal class of that package, which a new version may change without notice."""

from __future__ import annotations

from importlib import metadata
from typing import Protocol

import pyarrow as pa


class Encoder(Protocol):
    """Turns rows of lists into serialized `tf.train.Example`s."""

    def encode(self, rows: pa.RecordBatch) -> list[bytes]:
        """Returns one Example for each row, with one feature for each column."""


def make_encoder() -> Encoder:
    """Returns a new encoder.

    Raises:
      ImportError: this version of tfx-bsl lacks the encoder, or has changed it.
    """
    try:
        from tfx_bsl.coders import example_coder

        encoder: Encoder = example_coder.RecordBatchToExamplesEncoder()
    except (ImportError, AttributeError, TypeError) as error:
        raise ImportError(
            f"tfx-bsl {metadata.version('tfx-bsl')} changed RecordBatchToExamplesEncoder, which "
            f"pipeline.tfrecords.encoder relies on: {error}"
        ) from error
    return encoder
