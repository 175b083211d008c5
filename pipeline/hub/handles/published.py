"""A published module as people copy it: the name of a TF Hub module, or the address of its page."""

from __future__ import annotations

import re
import urllib.parse

from pipeline.core.errors import ModuleError
from pipeline.hub.handles.base import Request
from pipeline.hub.handles.http import resolve_address
from pipeline.hub.handles.kaggle import KaggleModel
from pipeline.hub.handles.local_path import local_path
from pipeline.savedmodel.module import Module

TF_HUB = "https://tfhub.dev"
"""Serves a module's `.tar.gz`, or redirects to it, if its page's address has `tf-hub-format=compressed`."""
KAGGLE_API = "https://www.kaggle.com/api/v1/models"
"""Serves a version's `.tar.gz` as OWNER/MODEL/FRAMEWORK/VARIATION/VERSION/download."""

# PUBLISHER/…/VERSION: `google/imagenet/mobilenet_v2_050_160/feature_vector/1`.
_NAME = re.compile(r"[a-z][\w-]*(/[\w.-]+)+/\d+", re.IGNORECASE)
_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(tfhub\.dev|kaggle\.com/models)(/[^?#]*)?([?#].*)?", re.IGNORECASE)
_VERSIONED_PAGE = re.compile(
    r"/(?P<owner>[^/]+)/(?P<model>[^/]+)/(?:frameworks/)?(?P<framework>[^/]+)/(?:variations/)?(?P<variation>[^/]+)"
    r"(?:/(?:versions/)?(?P<version>\d+))?/?"
)


class PublishedHandle:
    """Fetches the archive of the module; the cache knows it by the archive's address."""

    accepts = "a published name such as google/imagenet/mobilenet_v2_050_160/feature_vector/1, or its page's address"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle is the address of a page, or a published name and no local path."""
        if _PAGE.fullmatch(handle):
            return "://" in handle or not _exists(handle)
        return _NAME.fullmatch(handle) is not None and not _exists(handle)

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or fetches and unpacks it.

        Raises:
          ModuleError: the page is not that of one version of a module, or the server does not hand it out.
        """
        page = _PAGE.fullmatch(request.handle)
        if page is None:
            try:
                return resolve_address(request, f"{TF_HUB}/{request.handle}", _advice_of_tf_hub)
            except ModuleError as error:
                raise ModuleError(f"{error} (there is no path {request.handle} either)") from error
        path = urllib.parse.unquote(page[2] or "")
        if page[1].lower() == "tfhub.dev":
            return resolve_address(request, f"{TF_HUB}{path.rstrip('/')}", _advice_of_tf_hub)
        model = _kaggle_model(path, request.handle)
        return resolve_address(request, f"{KAGGLE_API}/{model}/download", model.advice)


def _exists(handle: str) -> bool:
    path = local_path(handle)
    return path is not None and path.exists()


def _kaggle_model(path: str, handle: str) -> KaggleModel:
    """Returns the version of a model that a page on Kaggle shows.

    Raises:
      ModuleError: the page shows none or all versions.
    """
    found = _VERSIONED_PAGE.fullmatch(path)
    if found is None:
        raise ModuleError(
            f"module {handle}: the page is that of all variations; expected the address of one, "
            "https://www.kaggle.com/models/OWNER/MODEL/FRAMEWORK/VARIATION/VERSION; choose one on the page"
        )
    framework = found["framework"]
    model = KaggleModel(
        found["owner"], found["model"], framework[:1].lower() + framework[1:], found["variation"], found["version"]
    )
    if not model.version:
        raise ModuleError(
            f"module {handle}: the address has no version; append one, such as /1, or say --module=kaggle:{model}, "
            "which takes the newest"
        )
    return model


def _advice_of_tf_hub(status: int) -> str:
    if status in (404, 410):
        return "there is no such module or version, or no longer; look for it on https://www.kaggle.com/models"
    return (
        "the module may need an account or your consent; look for it on https://www.kaggle.com/models and say "
        "--module=kaggle:OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"
    )
