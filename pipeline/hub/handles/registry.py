"""All kinds of module handles. The first one that supports a handle resolves it."""

from __future__ import annotations

from pipeline.hub.handles.base import ModuleHandle
from pipeline.hub.handles.http import HttpHandle
from pipeline.hub.handles.kaggle import KaggleHandle
from pipeline.hub.handles.local_archive import LocalArchiveHandle
from pipeline.hub.handles.local_directory import LocalDirectoryHandle
from pipeline.hub.handles.model_file import ModelFileHandle
from pipeline.hub.handles.object_store import RemoteHandle
from pipeline.hub.handles.published import PublishedHandle
from pipeline.hub.handles.untrained import UntrainedHandle

HANDLES: tuple[ModuleHandle, ...] = (
    UntrainedHandle(),
    ModelFileHandle(),
    KaggleHandle(),
    PublishedHandle(),
    HttpHandle(),
    RemoteHandle(),
    LocalArchiveHandle(),
    LocalDirectoryHandle(),
)
