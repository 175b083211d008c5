"""The `http(s)://` address of a module's `.tar.gz`."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import check_size, unpack_module
from pipeline.hub.handles.base import Request
from pipeline.savedmodel.module import Module

_logger = logging.getLogger(__name__)

Advice = Callable[[int], str]
"""Returns what to do about an answer of a server, from its HTTP status; 200 stands for a web page."""

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
        return resolve_address(request, request.handle)


def resolve_address(request: Request, url: str, advice: Advice | None = None) -> Module:
    """Returns the module of an `http(s)://` address from the cache, or fetches and unpacks it.

    Args:
      request: the request, whose handle stands for the address.
      url: the address of a `.tar.gz`.
      advice: what to do about an answer, if it depends on the server.

    Raises:
      ModuleError: the address does not answer with a module.
    """

    def make(work: Path) -> Path:
        download(url, work / "archive", request.handle, advice)
        if advice and _is_page(work / "archive"):
            raise ModuleError(f"module {request.handle}: {url} answered with a web page; {advice(200)}")
        return unpack_module(work / "archive", work, request.handle)

    return request.cached(("http", url), make)


def _is_page(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(256).lstrip().startswith(b"<")


def _advice(status: int) -> str:
    """Returns what to do about an answer."""
    if status in (401, 403):
        return "check the address and whether it needs an account"
    return "check the address"


class _ConnectionLostError(Exception):
    """The transfer failed in a way that may pass."""


def download(url: str, target: Path, origin: str, advice: Advice | None = None, *, expected: str = "a .tar.gz") -> None:
    """Copies what an `http(s)://` address serves to a file.

    An address without a query gets `tf-hub-format=compressed`, which asks a server of TF Hub modules for the
    tarball; other servers ignore it. An address with a query, which may be signed, is used as it stands. A lost
    connection and a failing server (5xx) are tried twice more. Proxies are taken from the environment.

    Args:
      url: the address.
      target: the new file.
      origin: what to call the module in an error.
      advice: what to do about an answer, if it depends on the server.
      expected: the kind of file, for an error.

    Raises:
      ModuleError: the address cannot be reached, does not answer with a file, or not with all of it.
      OSError: the disk refuses.
    """
    _logger.info("Fetching module %s", url)
    for wait_s in (*_RETRY_WAITS_S, None):
        try:
            with target.open("wb") as stream:
                for chunk in _http_chunks(url, origin, advice or _advice, expected):
                    stream.write(chunk)
            return
        except _ConnectionLostError as error:
            if wait_s is None:
                raise ModuleError(
                    f"module {origin}: {error} ({len(_RETRY_WAITS_S) + 1} attempts), expected {expected}; try again "
                    "later"
                ) from error
            time.sleep(wait_s)


def _http_chunks(url: str, origin: str, advice: Advice, expected: str) -> Iterator[bytes]:
    total_bytes = 0
    try:
        parts = urllib.parse.urlsplit(url)
        parts = parts._replace(query=parts.query or "tf-hub-format=compressed", fragment="")
        request = urllib.request.Request(parts.geturl(), headers={"User-Agent": "embedding-pipeline"})
        with _opener().open(request, timeout=_TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                total_bytes += len(chunk)
                check_size(total_bytes, origin)
                yield chunk
        if length is not None and total_bytes != int(length):
            raise _ConnectionLostError(f"the connection ended after {total_bytes:,} of {int(length):,} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {error.reason}"
        if url != origin:
            answer += f" for {url}"
        if error.code >= 500:
            raise _ConnectionLostError(answer) from error
        raise ModuleError(f"module {origin}: {answer}, expected {expected}; {advice(error.code)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(
            reason, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.IncompleteRead)
        ):
            raise _ConnectionLostError(f"the connection was lost ({reason})") from error
        where = "" if url == origin else f" at {url}"
        raise ModuleError(
            f"module {origin}: {reason or type(error).__name__}, expected a server{where} that answers with "
            f"{expected}; check the address and the network"
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
