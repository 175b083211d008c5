"""The interface of module formats: recognising a module by its files, reading its facts, loading its network.

A module is a directory. One file of it, the *model file*, says which format the module has and what its functions are;
the other files hold weights, or belong to somebody else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pipeline.core.errors import ModuleError
from pipeline.savedmodel.module import Module
from pipeline.savedmodel.signatures import ImageSignature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIGURATIONS = ("preprocess.yaml", "preprocessor_config.json", "config.json")
"""Files beside a model file that say how images are preprocessed: our own, of Hugging Face, and of timm."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The framework that a module is made for. The vectors of other engines are compared with its vectors.

    Attributes:
      package: its Python package.
      title: its name in a message.
    """

    package: str
    title: str


class Network(Protocol):
    """A function of a module, loaded to be converted.

    It takes `ImageSignature.fixed_batch_size` images, or one; in the following, N of them.
    """

    @property
    def has_reference(self) -> bool:
        """Whether the module's own framework is there to compute vectors."""
        ...

    def openvino_model(self, scratch: Path) -> Any:
        """Returns the adapted function as an `openvino.Model`: float32 [N, height, width, 3] in, float32 [N, D] out.

        Args:
          scratch: a directory for temporary files.

        Raises:
          OpenVINOError: OpenVINO cannot convert the function; or one of `openvino_errors`, for the same reason.
        """
        ...

    def reference_vectors(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the vectors of the module's own framework, if `has_reference`.

        Args:
          images: float32 [N, height, width, 3], as the function takes them; in [0, 1] for an input of uint8.

        Returns:
          float32 [N, D].

        Raises:
          ModuleError: the framework cannot compute the function.
        """
        ...


class ModuleFormat(Protocol):
    """A format of modules.

    To add a format, write a class with these members and add it to `pipeline.model_formats.registry.MODEL_FORMATS`.

    Attributes:
      title: the format in a message, such as `an ONNX model`.
      reference: the framework that `Network.reference_vectors` uses; None if there is none.
    """

    title: ClassVar[str]
    reference: ClassVar[Reference | None]

    def find(self, names: Collection[str]) -> str | None:
        """Returns the name of a directory's model file; None if the directory holds no module of this format.

        Args:
          names: of the directory's files, relative to it, with `/`.

        Raises:
          ModuleError: several files could be the model file.
        """
        ...

    def companions(self, path: Path) -> tuple[str, ...]:
        """Returns the files that a model file needs beside it, relative to its directory.

        Raises:
          ModuleError: the model file cannot be read.
        """
        ...

    def read(self, directory: str, model_file: str, *, handle: str, sha256: str) -> Module:
        """Reads what a module is, without loading its network.

        Raises:
          ModuleError: a file cannot be read, or is damaged.
        """
        ...

    def load(self, directory: str, model_file: str, signature: ImageSignature) -> Network:
        """Loads a function of a module.

        Raises:
          ModuleError: the module cannot be loaded.
        """
        ...


def find_one(names: Collection[str], suffix: str, preferred: Collection[str], folder: str) -> str | None:
    """Returns the file with a suffix that a directory or its sub-directory `folder` holds; None if there is none.

    Args:
      names: of the directory's files, relative to it, with `/`.
      suffix: such as `.onnx`.
      preferred: names that one of several files may have.
      folder: the sub-directory in which some tools put the files.

    Raises:
      ModuleError: there are several, and not one of them has a preferred name.
    """
    for prefix in ("", f"{folder}/"):
        found = sorted(
            name
            for name in names
            if name.lower().endswith(suffix)
            and name[: name.rfind("/") + 1] == prefix
            and not name.removeprefix(prefix).startswith(".")  # such as `._model.onnx`, which macOS leaves
        )
        chosen = [name for name in found if name.removeprefix(prefix) in preferred]
        if len(chosen or found) > 1:
            raise ModuleError(
                f"the directory holds several models ({', '.join(found[:5])}), expected one; name the file itself"
            )
        if found:
            return (chosen or found)[0]
    return None
