"""The `http(s)://` address of a module's `.tar.gz`."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import check_size, unpack_module
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.module import Module

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
_RETRY_WAITS_S = (1.0, 3.0)


class HttpHandle:
    """Fetches the archive once for each address."""

    accepts = "the http(s):// address of a .tar.gz"

    def is_supported(self, handle: str) -> bool:
        """Says whether the handle is an address of HTTP or HTTPS."""
        return handle.lower().startswith(("http://", "https://"))

    def __call__(self, request: Request) -> Module:
        """Returns the module from the cache, or fetches and unpacks it."""

        def make(work: Path) -> Path:
            download(request.handle, work / "archive")
            return unpack_module(work / "archive", work, request.handle)

        return request.cached(("http", request.handle), make)


class _ConnectionLostError(Exception):
    """The transfer failed in a way that may pass."""


def download(url: str, target: Path) -> None:
    """Copies what an `http(s)://` address serves to a file.

    An address without a query gets `tf-hub-format=compressed`, which asks a server of TF Hub modules for the
    tarball; other servers ignore it. An address with a query, which may be signed, is used as it stands. A lost
    connection and a failing server (5xx) are tried twice more. Proxies are taken from the environment.

    Raises:
      ModuleError: the address cannot be reached, does not answer with a file, or not with all of it.
      OSError: the disk refuses.
    """
    _logger.info("Fetching module %s", url)
    for wait_s in (*_RETRY_WAITS_S, None):
        try:
            with target.open("wb") as stream:
                for chunk in _http_chunks(url):
                    stream.write(chunk)
            return
        except _ConnectionLostError as error:
            if wait_s is None:
                raise ModuleError(
                    f"module {url}: {error} ({len(_RETRY_WAITS_S) + 1} attempts), expected a .tar.gz; try again later"
                ) from error
            time.sleep(wait_s)


def _http_chunks(url: str) -> Iterator[bytes]:
    total_bytes = 0
    try:
        parts = urllib.parse.urlsplit(url)
        parts = parts._replace(query=parts.query or "tf-hub-format=compressed", fragment="")
        request = urllib.request.Request(parts.geturl(), headers={"User-Agent": "embedding-pipeline"})
        with _opener().open(request, timeout=_TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                total_bytes += len(chunk)
                check_size(total_bytes, url)
                yield chunk
        if length is not None and total_bytes != int(length):
            raise _ConnectionLostError(f"the connection ended after {total_bytes:,} of {int(length):,} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {error.reason}"
        if error.code >= 500:
            raise _ConnectionLostError(answer) from error
        raise ModuleError(f"module {url}: {answer}, expected a .tar.gz; check the address") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(
            reason, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)
        ):
            raise _ConnectionLostError(f"the connection was lost ({reason})") from error
        raise ModuleError(
            f"module {url}: {reason or type(error).__name__}, expected a server that answers with a .tar.gz; check "
            "the address and the network"
        ) from error


def _opener() -> urllib.request.OpenerDirector:
    """Returns an opener that, wherever it is redirected, speaks nothing but HTTP and HTTPS."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
