"""Serves images at `http://127.0.0.1:PORT/NUMBER.jpg`, each after a delay: `python -m benchmarks.url_server DIR`.

Prints the port. Image N is the N-th file of the directory, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

_REQUEST = re.compile(rb"GET /(\d+)\.jpg[^ ]* HTTP/1\.1\r\n(.*?)\r\n\r\n", re.DOTALL)
_CLOSE = re.compile(rb"^Connection: *close", re.IGNORECASE | re.MULTILINE)


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Sequence[bytes], delay_s: float) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        found = _REQUEST.match(self._received)
        if found:
            self._received = b""
            is_last = _CLOSE.search(found[2]) is not None
            asyncio.get_running_loop().call_later(self._delay_s, self._answer, int(found[1]), is_last)

    def _answer(self, number: int, is_last: bool) -> None:
        self._transport.write(self._answers[number % len(self._answers)])
        if is_last:
            self._transport.close()


async def _serve(answers: Sequence[bytes], delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers, delay_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.url_server", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--delay", type=float, default=0.02, metavar="SECONDS", help="before an answer. Default: 0.02")
    options = parser.parse_args()
    images = [path.read_bytes() for path in sorted(options.directory.iterdir())]
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    asyncio.run(_serve([head.format(len(image)).encode() + image for image in images], options.delay))


if __name__ == "__main__":
    main()
