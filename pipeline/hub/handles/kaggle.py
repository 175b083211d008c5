"""`kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]`: a model of Kaggle, fetched by the package `kagglehub`."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.contents import locate_module
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.module import Module

_PREFIX = "kaggle:"
_PART = r"[\w.-]+"
_HANDLE = re.compile(rf"({_PART})/({_PART})/({_PART})/({_PART})(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class KaggleModel:
    """A variation of a model, or one version of it.

    Attributes:
      owner: such as `google`.
      model: such as `mobilenet-v2`.
      framework: such as `tensorFlow2`.
      variation: such as `050-160-feature-vector`.
      version: a number; None for the newest.
    """

    owner: str
    model: str
    framework: str
    variation: str
    version: str | None

    def __str__(self) -> str:
        parts = (self.owner, self.model, self.framework, self.variation, self.version)
        return "/".join(part for part in parts if part)

    def advice(self, status: int) -> str:
        """Returns what to do about an answer of Kaggle's servers, from its HTTP status."""
        if status in (404, 410):
            return f"there is no such model or version, or no longer; look at {self.page}"
        return (
            f"the model needs an account or your consent; accept its terms on {self.page}, and say "
            f"--module={_PREFIX}{self} with your credentials in KAGGLE_USERNAME and KAGGLE_KEY or ~/.kaggle/kaggle.json"
        )

    @property
    def page(self) -> str:
        """The address of the model's page."""
        return f"https://www.kaggle.com/models/{self.owner}/{self.model}"


class KaggleHandle:
    """Lets `kagglehub` fetch the files, with the credentials that it finds, and keeps them in the cache."""

    accepts = f"{_PREFIX}OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle starts with `kaggle:`."""
        return handle.startswith(_PREFIX)

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or fetches it.

        A handle without a version means the version that was the newest when the module was fetched first.
        """
        found = _HANDLE.fullmatch(request.handle.removeprefix(_PREFIX))
        if found is None:
            raise ModuleError(
                f"module {request.handle}: not the name of a model; expected {self.accepts}, such as "
                f"{_PREFIX}google/mobilenet-v2/tensorFlow2/050-160-feature-vector/1; copy it from the model's page"
            )
        model = KaggleModel(*found.groups())

        def make(work: Path) -> Path:
            _download(model, work / "model", request.handle)
            return locate_module(work / "model", request.handle)

        return request.cached(("kaggle", str(model)), make)


def _download(model: KaggleModel, target: Path, handle: str) -> None:
    """Fetches the files of a model to a new directory.

    Raises:
      ModuleError: `kagglehub` is not installed, or cannot fetch the model.
    """
    os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")
    try:
        import kagglehub
    except ImportError as error:
        raise ModuleError(
            f"module {handle}: the package kagglehub is not installed ({error}); "
            "pip install 'embedding-pipeline[kaggle]'"
        ) from error
    try:
        kagglehub.model_download(str(model), output_dir=str(target))
    except Exception as error:  # kagglehub's errors have no common base class.
        response = getattr(error, "response", None)
        if response is not None:
            raise ModuleError(
                f"module {handle}: Kaggle answered {response.status_code}; {model.advice(response.status_code)}"
            ) from error
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ModuleError(
            f"module {handle}: kagglehub cannot fetch it: {text}; check the network, and look at {model.page}"
        ) from error
    shutil.rmtree(target / ".complete", ignore_errors=True)  # kagglehub's marks, which are no files of the model
