"""Turns image data sets into embeddings with Apache Beam.

The names below are the public API. They are loaded when they are first used, so that importing this
package loads neither TensorFlow nor Beam.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.beam.embed import EmbedImages
    from pipeline.beam.model_handler import EmbeddingModelHandler
    from pipeline.beam.read import ReadImages
    from pipeline.beam.write import WriteEmbeddings
    from pipeline.core.config import RunConfig
    from pipeline.dataset.reader import read_embeddings
    from pipeline.dataset.table import read_table
    from pipeline.embedding.embedder import Embedder
    from pipeline.job.run import run

__all__ = [
    "EmbedImages",
    "Embedder",
    "EmbeddingModelHandler",
    "ReadImages",
    "RunConfig",
    "WriteEmbeddings",
    "read_embeddings",
    "read_table",
    "run",
]

_MODULES = {
    "EmbedImages": "pipeline.beam.embed",
    "EmbeddingModelHandler": "pipeline.beam.model_handler",
    "Embedder": "pipeline.embedding.embedder",
    "ReadImages": "pipeline.beam.read",
    "RunConfig": "pipeline.core.config",
    "WriteEmbeddings": "pipeline.beam.write",
    "read_embeddings": "pipeline.dataset.reader",
    "read_table": "pipeline.dataset.table",
    "run": "pipeline.job.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
