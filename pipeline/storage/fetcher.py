"""Fetches many `http(s)://` addresses at a time, and returns their contents in order."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.storage.fetch_budget import FetchBudget, Room
from pipeline.storage.web_client import RESERVED_BYTES, FetchFailure, FetchSettings, WebClient

LEAST_BUDGET_BYTES = 64 << 20
"""Bytes under way, or waiting for their consumer, at the usual concurrency."""
LEAST_AHEAD = 1024
"""Addresses of a stream that are started before the first one of them is done: a slow one delays those after it."""
_FIRST_AHEAD = 16
"""The same at the start of a stream, from which perhaps only a sample is taken."""
_LOOKUP_THREADS = 16


class Fetcher:
    """A thread with an event loop, whose client all threads of a process share.

    One thread instead of many: a fetch costs half the processor time, which inference needs.
    """

    def __init__(self, settings: FetchSettings, make_client: Callable[[FetchSettings], WebClient] = WebClient) -> None:
        """Starts the thread, which ends when the object is garbage, or with the process."""
        loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="lookup"))
        thread = threading.Thread(target=loop.run_forever, name="fetch", daemon=True)
        thread.start()
        self._loop = loop
        # Twice the room that all slots reserve: finished images must not keep slots empty.
        self._budget = FetchBudget(max(LEAST_BUDGET_BYTES, 2 * settings.concurrency * RESERVED_BYTES), loop)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._most_ahead = max(LEAST_AHEAD, 2 * settings.concurrency)
        self._client = make_client(settings)
        asyncio.run_coroutine_threadsafe(self._client.__aenter__(), loop).result()
        self.close = weakref.finalize(self, _close, loop, thread, self._client, os.getpid())

    def fetch(self, addresses: Iterable[str]) -> Iterator[bytes | FetchFailure]:
        """Yields what each address serves, in order.

        Args:
          addresses: are taken some way ahead of the results, in the calling thread.
        """
        waiting = iter(addresses)
        under_way: deque[_Fetch] = deque()
        taken = 0
        try:
            while True:
                ahead = min(self._most_ahead, _FIRST_AHEAD + 2 * taken)
                if len(under_way) <= ahead // 2:
                    chosen = itertools.islice(waiting, ahead - len(under_way))
                    started = [_Fetch(address, Room(self._budget)) for address in chosen]
                    under_way += started
                    if started:
                        self._loop.call_soon_threadsafe(self._start, started)
                if not under_way:
                    return
                fetch = under_way[0]
                if not fetch.result.done():
                    fetch.room.hurry()
                found = fetch.result.result()
                under_way.popleft()
                fetch.room.close()
                taken += 1
                yield found
        finally:
            if under_way and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_cancel, tuple(under_way))

    def _start(self, fetches: Sequence[_Fetch]) -> None:
        for fetch in fetches:
            fetch.task = self._loop.create_task(fetch.run(self._client, self._slots))


class _Fetch:
    """One address that is fetched."""

    def __init__(self, address: str, room: Room) -> None:
        self.room = room
        self.result: Future[bytes | FetchFailure] = Future()
        self.task: asyncio.Task[None] | None = None
        self._address = address

    async def run(self, client: WebClient, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                self.result.set_result(await client.get(self._address, self.room))
        except BaseException as error:
            self.result.set_exception(error)
            if not isinstance(error, Exception):
                raise


def _cancel(fetches: Sequence[_Fetch]) -> None:
    for fetch in fetches:
        if fetch.task is not None:
            fetch.task.cancel()
        fetch.room.close()


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: WebClient, process: int) -> None:
    """Ends the thread of a fetcher, unless this is a fork of its process, which has no such thread."""
    if process != os.getpid():
        return

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.__aexit__(None, None, None)

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def shared_fetcher(settings: FetchSettings) -> Fetcher:
    """Returns the fetcher of this process, which keeps its connections open from one part of the input to the next."""
    return _shared_fetcher(os.getpid(), settings)


@functools.lru_cache(maxsize=1)  # a fetcher holds open connections; a forked process has no thread of its parent
def _shared_fetcher(process: int, settings: FetchSettings) -> Fetcher:
    del process
    return Fetcher(settings)
