"""The client that fetches one `http(s)://` address: with its retries, limits and reasons of failure."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from pipeline.core.failures import FAILURE_REASONS, FailureReason
from pipeline.storage.fetch_budget import Room
from pipeline.storage.web_addresses import is_public, parse_address

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from yarl import URL

USER_AGENT = "embedding-pipeline"
ATTEMPTS = 4
MAX_REDIRECTS = 10
RESERVED_BYTES = 256 << 10
"""Room of a fetch before its size is known."""
_FIRST_WAIT_S = 0.5
_CONNECT_SHARE = 3
"""A server that accepts no connection within this fraction of the time is given up."""
_NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


@dataclass(frozen=True)
class FetchSettings:
    """Settings of the client.

    Attributes:
      concurrency: fetches at the same time.
      timeout_s: time for one image as a whole, with redirects, retries and the waits between them.
      max_bytes: a larger image is a failure.
      allow_private: whether addresses outside the public internet may be reached.
    """

    concurrency: int
    timeout_s: float
    max_bytes: int
    allow_private: bool


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """An address without an image.

    Attributes:
      reason: the kind of failure.
      message: one line for people: what arrived, and what to do.
    """

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class _Setback:
    """A failed attempt that may be repeated, after `wait_s` at the earliest."""

    failure: FetchFailure
    wait_s: float = 0.0


class _PrivateAddressError(OSError):
    """The address is not of the public internet. The texts are equal: so aiohttp keeps the class of several errors."""


class WebClient:
    """Fetches addresses, in one event loop.

    The check of an address is the creation of the socket for it, so that no second look-up of a name, no redirect and
    no odd spelling gets past the check. Neither proxies nor `.netrc` files are used, and no cookies kept.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Makes a client.

        Args:
          settings: the limits.
          sleep: waits for some seconds.
          now: returns the seconds since 1970.
        """
        self._settings = settings
        self._sleep = sleep
        self._now = now
        self._session: Any = None

    async def __aenter__(self) -> WebClient:
        import aiohttp

        timeout_s = self._settings.timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=self._make_socket, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout_s / _CONNECT_SHARE),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, target = info
        if not self._settings.allow_private and not is_public(target[0]):
            raise _PrivateAddressError("not an address of the public internet")
        return socket.socket(family, kind, protocol)

    async def get(self, address: str, room: Room) -> bytes | FetchFailure:
        """Returns what an address serves.

        Args:
          address: an `http(s)://` address.
          room: for the bytes. Time in which the client waits for room does not count.
        """
        try:
            url = parse_address(address)
        except ValueError as error:
            return FetchFailure("http_invalid", f"no web address: {error}; expected http://HOST/PATH or https://…")
        if waiting := room.grow(RESERVED_BYTES):
            await waiting
        try:
            async with asyncio.timeout(self._settings.timeout_s) as deadline:
                found = await self._get(url, room, deadline)
        except TimeoutError:
            text = f"no complete answer within the {self._settings.timeout_s:g} s of --fetch_timeout"
            found = FetchFailure("http_timeout", f"{text}; {_LATER}")
        room.shrink(len(found) if isinstance(found, bytes) else 0)
        return found

    async def _get(self, url: URL, room: Room, deadline: asyncio.Timeout) -> bytes | FetchFailure:
        for attempt in itertools.count(1):
            found = await self._attempt(url, room, deadline)
            if not isinstance(found, _Setback):
                return found
            wait_s = max(found.wait_s, backoff(attempt, random.random()))
            left_s = cast(float, deadline.when()) - asyncio.get_running_loop().time()
            if attempt == ATTEMPTS or wait_s >= left_s:
                asked = f", which asked to wait {found.wait_s:.0f} s" if found.wait_s >= left_s else ""
                failure = found.failure
                return FetchFailure(failure.reason, f"{failure.message}{asked} (attempt {attempt}); {_LATER}")
            room.shrink(RESERVED_BYTES)
            await self._sleep(wait_s)
        raise AssertionError

    async def _attempt(self, url: URL, room: Room, deadline: asyncio.Timeout) -> bytes | FetchFailure | _Setback:
        import aiohttp

        try:
            async with self._session.get(url, max_redirects=MAX_REDIRECTS) as response:
                if 200 <= response.status < 300:
                    return await self._read(response, room, deadline)
                return self._refused(response)
        except aiohttp.ConnectionTimeoutError:
            limit_s = self._settings.timeout_s / _CONNECT_SHARE
            return FetchFailure("http_timeout", f"the server accepted no connection within {limit_s:g} s; {_LATER}")
        except aiohttp.TooManyRedirects:
            return FetchFailure("http_redirects", f"more than {MAX_REDIRECTS} redirects; check the address")
        except aiohttp.RedirectClientError as error:
            return FetchFailure("http_redirects", f"redirected to {error}, which is not fetched; check the address")
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"the server's certificate is not trusted: {error.certificate_error}"
            return FetchFailure("http_connection", text)
        except aiohttp.ClientConnectorError as error:
            return _not_connected(error.os_error, url.host or "")
        except (aiohttp.InvalidURL, UnicodeError) as error:  # a name that no resolver takes, also of a redirect
            return FetchFailure("http_invalid", f"no web address: {error}; check the address")
        except aiohttp.ClientPayloadError as error:
            is_odd = "content-encoding" in str(error)
            text = "the answer has another Content-Encoding than it says" if is_odd else "the connection broke off"
            return _Setback(FetchFailure("http_connection", text))
        except aiohttp.ClientResponseError as error:
            text = (error.message.strip().splitlines() or [""])[0].rstrip(":")  # without the excerpt
            return _Setback(FetchFailure("http_connection", f"the answer is no HTTP: {text}"))
        except (aiohttp.ClientError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            return _Setback(FetchFailure("http_connection", f"the connection failed: {text}"))

    async def _read(self, response: ClientResponse, room: Room, deadline: asyncio.Timeout) -> bytes | FetchFailure:
        limit = self._settings.max_bytes
        chunks: list[bytes] = []
        size_bytes = response.content_length or 0
        if size_bytes <= limit:
            size_bytes = 0
            async for chunk in response.content.iter_any():
                size_bytes += len(chunk)
                if size_bytes > limit:
                    break
                if waiting := room.grow(size_bytes):
                    await _unhurried(waiting, deadline)
                chunks.append(chunk)
        if size_bytes > limit:
            text = f"the server sends more than the {limit} bytes that --max_image_bytes allows"
            return FetchFailure("too_large", text)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _refused(self, response: ClientResponse) -> FetchFailure | _Setback:
        name = f"http_{response.status}"
        reason = cast(FailureReason, name if name in FAILURE_REASONS else "http_status")
        text = f"the server answered {response.status} {response.reason or _phrase(response.status)}".rstrip()
        if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _Setback(FetchFailure(reason, text), retry_after(response.headers.get("Retry-After"), self._now()))
        return FetchFailure(reason, f"{text}; check the address")


_LATER = "try again later with --retry_failed"


def _not_connected(error: OSError, host: str) -> FetchFailure | _Setback:
    if isinstance(error, _PrivateAddressError):
        text = f"{host}, or a host that it redirects to, has no address of the public internet"
        return FetchFailure("http_private_address", f"{text}; if it is yours, add --allow_private_addresses")
    text = f"no connection: {error.strerror or error}"
    failure = FetchFailure("http_connection", text)
    return failure if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST else _Setback(failure)


async def _unhurried(waiting: asyncio.Future[None], deadline: asyncio.Timeout) -> None:
    """Waits without a deadline, and then moves the deadline by the time that passed."""
    loop, when = asyncio.get_running_loop(), cast(float, deadline.when())
    started = loop.time()
    deadline.reschedule(None)
    await waiting
    deadline.reschedule(when + loop.time() - started)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def backoff(attempt: int, chance: float) -> float:
    """Returns the seconds to wait after an attempt, counted from 1: twice as long each time, half of it by chance.

    Args:
      attempt: number of the attempt that failed.
      chance: a random number from 0 to 1.
    """
    return _FIRST_WAIT_S * float(2 ** (attempt - 1)) * (0.5 + chance / 2)


def retry_after(header: str | None, now_s: float) -> float:
    """Returns the seconds to wait by a `Retry-After` header (RFC 9110): seconds or a date; 0 if it has neither.

    Args:
      header: its value.
      now_s: the present time, in seconds since 1970.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0
