"""A web server on 127.0.0.1 that answers as a test says, and misbehaves if it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class WebServer:
    """Serves the answers for a path: the n-th time the n-th one, then the last one again.

    Attributes:
      answers: by path.
      requests: how often each path was asked for.
      heads: the requests, without their bodies.
      most: the largest number of requests that were answered at the same time.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: Counter[str] = Counter()
        self.heads: list[str] = []
        self.most = 0
        self._now = 0
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, host, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def url(self, path: str = "/") -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, *answers: Answer) -> str:
        """Adds a path, and returns its address."""
        self.answers[path] = list(answers)
        return self.url(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                path = head.split(" ", 2)[1]
                answers = self.answers.get(path) or self.answers[path.partition("?")[0]]
                answer = answers[min(self.requests[path], len(answers) - 1)]
                self.requests[path] += 1
                self.heads.append(head)
                self._now += 1
                self.most = max(self.most, self._now)
                try:
                    await answer(reader, writer)
                finally:
                    self._now -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    @contextlib.contextmanager
    def running(self) -> Iterator[WebServer]:
        thread = threading.Thread(target=self._loop.run_forever, name="web server")
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closes the sockets of the connections


def raw(data: bytes, *, then: Answer | None = None) -> Answer:
    """Returns an answer of some bytes, after which the connection stays open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then is not None:
            await then(reader, writer)

    return answer


def reply(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Returns an ordinary answer."""
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Status'}"]
    lines += [f"{name}: {value}" for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items()]
    return raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def redirect(target: str) -> Answer:
    return reply(status=302, headers={"Location": target})


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends nothing more, until the client goes away."""
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends single bytes for ever."""
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends zeros for ever."""
    while not writer.is_closing():
        writer.write(bytes(1 << 16))
        await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Breaks the connection without its end."""
    linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
