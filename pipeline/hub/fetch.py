"""Copying a module's bytes from another machine: HTTP and Google Cloud Storage."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ModuleError
from pipeline.hub.archive import MAX_BYTES, MAX_FILES

_logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
_RETRY_WAITS_S = (1.0, 3.0)


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
                _check_size(total_bytes, url)
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


@dataclass(frozen=True, slots=True)
class GcsObject:
    """An object of Google Cloud Storage, as it was when it was listed.

    Attributes:
      path: `gs://…`.
      size_bytes: its size.
      updated_s: when it was last written, in seconds since the epoch.
    """

    path: str
    size_bytes: int
    updated_s: float


def list_gcs(path: str) -> tuple[GcsObject, ...]:
    """Returns an object, or all the objects under a path that ends with `/`, sorted; empty if there are none.

    The empty objects that some tools make for directories are left out.

    Raises:
      ModuleError: the path cannot be listed, holds a wildcard, or is too large for a module.
    """
    from apache_beam.io.filesystems import FileSystems

    if any(character in path for character in "*?["):
        raise ModuleError(f"module {path}: it holds a wildcard, expected one directory or .tar.gz; name it in full")
    try:
        (match,) = FileSystems.match([path + "**" if path.endswith("/") else path], [MAX_FILES + 1])
    except Exception as error:  # whatever Beam's file system raises
        raise _gcs_error(path, error) from error
    objects = sorted(
        (
            GcsObject(found.path, found.size_in_bytes, found.last_updated_in_seconds)
            for found in match.metadata_list
            if not found.path.endswith("/")
        ),
        key=lambda found: found.path,
    )
    if len(objects) > MAX_FILES:
        raise ModuleError(
            f"module {path}: it has more than {MAX_FILES:,} files, the limit for a module; check the path"
        )
    _check_size(sum(found.size_bytes for found in objects), path)
    return tuple(objects)


def copy_gcs(source: GcsObject, target: Path) -> None:
    """Copies an object to a file.

    Raises:
      ModuleError: the object cannot be read, or is not as it was listed.
      OSError: the disk refuses.
    """
    total_bytes = 0
    with target.open("xb") as stream:
        for chunk in _gcs_chunks(source.path):
            total_bytes += len(chunk)
            stream.write(chunk)
    if total_bytes != source.size_bytes:
        raise ModuleError(
            f"module {source.path}: {total_bytes:,} bytes came, expected {source.size_bytes:,}; it changes, try again"
        )


def _gcs_chunks(path: str) -> Iterator[bytes]:
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except Exception as error:  # whatever Beam's file system raises
        raise _gcs_error(path, error) from error


def _gcs_error(path: str, error: BaseException) -> ModuleError:
    # Beam wraps the cause, at times twice, in an error that holds one cause for each path.
    while details := getattr(error, "exception_details", None):
        error = next(iter(details.values()))
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ModuleError(
        f"module {path}: {reason}; expected an object that can be read; check the path and your permission to read it"
    )


def _check_size(size_bytes: int, origin: str) -> None:
    if size_bytes > MAX_BYTES:
        raise ModuleError(
            f"module {origin}: it has more than {MAX_BYTES:,} bytes, the limit for a module; check the address"
        )
