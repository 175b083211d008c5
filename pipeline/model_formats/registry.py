"""All formats of modules. The first one that finds its model file in a directory reads the module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.model_formats.base import ModuleFormat
from pipeline.model_formats.onnx import Onnx
from pipeline.model_formats.openvino_ir import OpenVinoIr
from pipeline.model_formats.saved_model import SavedModel
from pipeline.savedmodel.digest import module_digest, not_a_module
from pipeline.savedmodel.module import Module

_SAVED_MODEL = SavedModel()
MODEL_FORMATS: Mapping[str, ModuleFormat] = {
    "tf1_hub": _SAVED_MODEL,
    "tf2": _SAVED_MODEL,
    "onnx": Onnx(),
    "openvino_ir": OpenVinoIr(),
}
"""By the `format` of a `Module`."""

SAVED_MODEL_FORMATS = tuple(name for name, kind in MODEL_FORMATS.items() if kind is _SAVED_MODEL)
"""Those whose graph TensorFlow loads."""

MODEL_SUFFIXES = (".onnx", ".xml", ".bin")
"""Ends of the names of model files other than SavedModels, and of the weights of OpenVINO's."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that says what a module is.

    Attributes:
      name: relative to the module's directory, with `/`.
      format: of the module.
    """

    name: str
    format: ModuleFormat


def find_model_file(names: Collection[str]) -> ModelFile | None:
    """Returns the model file of a directory; None if the directory holds no module.

    Args:
      names: of the directory's files, relative to it, with `/`.

    Raises:
      ModuleError: several files could be the model file.
    """
    for kind in dict.fromkeys(MODEL_FORMATS.values()):
        name = kind.find(names)
        if name is not None:
            return ModelFile(name, kind)
    return None


def model_file_in(directory: Path) -> ModelFile | None:
    """Returns the model file of a local directory; None if it holds no module.

    Raises:
      ModuleError: several files could be the model file.
      OSError: the directory cannot be read.
    """
    files = (path for pattern in ("*", "*/*") for path in directory.glob(pattern) if path.is_file())
    return find_model_file({path.relative_to(directory).as_posix() for path in files})


def read_module(path: str, *, handle: str | None = None, sha256: str | None = None) -> Module:
    """Reads the module in a directory, whatever its format, without loading its network.

    Args:
      path: the directory.
      handle: the module's name for the user; default: the path.
      sha256: the module's digest; computed by default, which reads all files.

    Raises:
      ModuleError: the directory holds no module, or one that cannot be read.
    """
    found = model_file_in(Path(path))
    if found is None:
        raise not_a_module(handle or path)
    return found.format.read(path, found.name, handle=handle or path, sha256=sha256 or module_digest(path))
