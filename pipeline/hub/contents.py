"""Recognises what a path holds: finds the module in it, or names what is there instead."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from pipeline.core.errors import ModuleError
from pipeline.model_formats.registry import MODEL_SUFFIXES, find_model_file
from pipeline.savedmodel.digest import SAVED_MODEL, not_a_module

_log = logging.getLogger(__name__)

LFS_POINTER = b"version https://git-lfs"
"""The beginning of the small file that Git keeps in the place of one that Git LFS stores."""

_MAX_DEPTH = 4
_MAX_FOLDERS = 1000
_MAX_POINTER_BYTES = 1024
# Folders of macOS's and other archivers' metadata, and hidden ones.
_LEFTOVER = re.compile(r"\..*|__MACOSX|PaxHeaders(\..*)?")

_KERAS = (
    "a model in Keras's own format; export it with keras.saving.load_model(FILE).export('module') and name the "
    "directory `module`"
)
_PYTORCH = "weights of PyTorch; export the model as a SavedModel"
_CHECKPOINT = (
    "a TensorFlow checkpoint without a graph; export it (`python -m pipeline.hub export` does so for TF-Slim's "
    "MobileNetV2)"
)
_BY_START: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(re.escape(LFS_POINTER)),
        "a pointer of Git LFS in the place of the file; run `git lfs pull` in its repository",
    ),
    (re.compile(rb"\x89HDF\r\n"), _KERAS),
    (re.compile(rb"....TFL3", re.DOTALL), "a TensorFlow Lite model; take the SavedModel that it was converted from"),
)
_BY_NAME: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r".*\.(keras|h5|hdf5)"), _KERAS),
    (re.compile(r"saved_model\.pbtxt"), "a SavedModel in text format; load it with TensorFlow and save it again"),
    (re.compile(r".*\.pb"), "a graph without signatures; save it as a SavedModel with tf.saved_model.save"),
    (re.compile(r".*\.tflite"), "a TensorFlow Lite model; take the SavedModel that it was converted from"),
    (re.compile(r".*\.(pt|pth|safetensors)|pytorch_model\.bin"), _PYTORCH),
    (re.compile(r".*\.ckpt.*|checkpoint|.*\.data-\d+-of-\d+"), _CHECKPOINT),
    (re.compile(r".*\.(zip|tar)"), "an archive of another kind; unpack it and name the directory"),
)


def locate_module(path: Path, handle: str) -> Path:
    """Returns the directory of the module that a path holds.

    It is the path itself; the directory of a `saved_model.pb`; or, if the path is a directory without a module at its
    root, the only module below it, or the one with the highest number of several numbered ones.

    Args:
      path: an existing file or directory.
      handle: what the user calls the module.

    Raises:
      ModuleError: there is no module or more than one, or a file of it is a pointer of Git LFS.
      OSError: the path cannot be read.
    """
    if path.is_file():
        if path.name == SAVED_MODEL:
            return _checked(path.parent, handle)
        if kind := _kind_of(path):
            raise ModuleError(f"module {handle}: it is {kind}")
        raise ModuleError(
            f"module {handle}: it is a file of another kind, expected {SAVED_MODEL}, a .tar.gz or a directory; pack or "
            "name it so"
        )
    roots = module_roots([PurePosixPath(file.relative_to(path).as_posix()) for file in _files_below(path)])
    if not roots:
        for name in sorted(entry.name for entry in path.iterdir() if entry.is_file()):
            if kind := _kind_of(path / name):
                raise ModuleError(f"module {handle}: it holds no {SAVED_MODEL}; {name} is {kind}")
        raise not_a_module(handle)
    return _checked(path / choose_root(roots, handle), handle)


def choose_root(roots: Iterable[PurePosixPath], handle: str) -> PurePosixPath:
    """Returns one of the directories with modules that a place holds: the only one, or the highest number.

    Args:
      roots: the directories, relative to the place; at least one.
      handle: what the user calls the place.

    Raises:
      ModuleError: there are several, and not all have a number for a name, in the same directory.
    """
    found = sorted(root for root in roots if not any(_LEFTOVER.fullmatch(part) for part in root.parts))
    inner = [root for root in found if not any(parent in found for parent in root.parents)]
    if not inner:
        raise not_a_module(handle)
    if len(inner) == 1:
        return inner[0]
    names = ", ".join(map(str, inner[:5])) + (" and more" if len(inner) > 5 else "")
    if len({root.parent for root in inner}) == 1 and all(root.name.isdecimal() for root in inner):
        newest = max(inner, key=lambda root: int(root.name))
        _log.info("module %s: taking version %s of %s", handle, newest.name, names)
        return newest
    raise ModuleError(f"module {handle}: it holds several modules: {names}; name the directory of one")


def module_roots(names: Collection[PurePosixPath]) -> list[PurePosixPath]:
    """Returns the directories of modules, relative to a place; if there is no SavedModel, those of other formats.

    Args:
      names: the files below the place, relative to it.

    Raises:
      ModuleError: a directory has several model files.
    """
    roots = [name.parent for name in names if name.name == SAVED_MODEL]
    if roots:
        return roots
    models = [name for name in names if name.suffix.lower() in MODEL_SUFFIXES]
    for folder in sorted({parent for name in models for parent in name.parents}, key=lambda folder: len(folder.parts)):
        inside = [name.relative_to(folder).as_posix() for name in models if name.is_relative_to(folder)]
        if not any(root in folder.parents for root in roots) and find_model_file(inside):
            roots.append(folder)
    return roots


def _files_below(path: Path) -> Iterator[Path]:
    """Yields the files below a directory, a few levels deep; nothing below a directory with a `saved_model.pb`."""
    for visited, (folder, subfolders, files) in enumerate(os.walk(path), start=1):
        here = Path(folder)
        yield from (here / name for name in files)
        if SAVED_MODEL in files or len(here.relative_to(path).parts) >= _MAX_DEPTH or visited > _MAX_FOLDERS:
            subfolders.clear()
        subfolders[:] = sorted(name for name in subfolders if not _LEFTOVER.fullmatch(name))


def _kind_of(file: Path) -> str:
    """Returns what a file is that is no module, and what to do; empty if unknown."""
    with file.open("rb") as stream:
        start = stream.read(64)
    return next((kind for pattern, kind in _BY_START if pattern.match(start)), "") or next(
        (kind for pattern, kind in _BY_NAME if pattern.fullmatch(file.name.lower())), ""
    )


def _checked(directory: Path, handle: str) -> Path:
    """Returns the directory of a module, after a look for pointers of Git LFS among its files.

    Raises:
      ModuleError: there is one.
    """
    patterns = (SAVED_MODEL, "variables/*", "assets/*", *(f"*{suffix}" for suffix in MODEL_SUFFIXES))
    for file in (file for pattern in patterns for file in sorted(directory.glob(pattern))):
        if not file.is_file() or file.stat().st_size > _MAX_POINTER_BYTES:
            continue
        with file.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModuleError(
                    f"module {handle}: {file.relative_to(directory).as_posix()} is a pointer of Git LFS in the place "
                    "of the file; run `git lfs pull` in its repository"
                )
    return directory
