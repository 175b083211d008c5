"""Turns image data sets into embeddings with Apache Beam.

The names below are the public API. They are loaded when they are first used, so that importing this
package loads neither TensorFlow nor Beam.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.embedder import Embedder
    from pipeline.job import run
    from pipeline.reader import read_embeddings
    from pipeline.transforms.embed import EmbedImages
    from pipeline.transforms.read import ReadImages
    from pipeline.transforms.write import WriteEmbeddings

__all__ = ["EmbedImages", "Embedder", "ReadImages", "RunConfig", "WriteEmbeddings", "read_embeddings", "run"]

_MODULES = {
    "EmbedImages": "pipeline.transforms.embed",
    "Embedder": "pipeline.embedder",
    "ReadImages": "pipeline.transforms.read",
    "RunConfig": "pipeline.config",
    "WriteEmbeddings": "pipeline.transforms.write",
    "read_embeddings": "pipeline.reader",
    "run": "pipeline.job",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
