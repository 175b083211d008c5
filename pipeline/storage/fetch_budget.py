"""A bound on the bytes of web images that are under way, or that wait for their consumer."""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class FetchBudget:
    """The bytes that all fetches of a process may hold. Fetches run in one event loop, consumers in other threads."""

    def __init__(self, limit_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._free_bytes = limit_bytes
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Room, int, asyncio.Future[None]]] = deque()

    def change(self, size_bytes: int) -> None:
        """Returns bytes to the budget; takes them, even beyond the limit, if the number is negative."""
        with self._lock:
            self._free_bytes += size_bytes
        self.wake()

    def wake(self) -> None:
        """Lets waiting fetches check again, from any thread."""
        if self._waiting:
            self._loop.call_soon_threadsafe(self._admit)

    def take(self, room: Room, size_bytes: int) -> asyncio.Future[None] | None:
        """Takes bytes for a room, and returns None; or returns a future that is done once they were taken."""
        with self._lock:
            if room.is_urgent or (not self._waiting and size_bytes <= self._free_bytes):
                self._free_bytes -= size_bytes
                return None
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append((room, size_bytes, future))
            return future

    def _admit(self) -> None:
        with self._lock:
            still: deque[tuple[Room, int, asyncio.Future[None]]] = deque()
            for room, size_bytes, future in self._waiting:
                if future.done():  # the fetch was cancelled
                    continue
                if room.is_urgent or (not still and size_bytes <= self._free_bytes):
                    self._free_bytes -= size_bytes
                    future.set_result(None)
                else:
                    still.append((room, size_bytes, future))
            self._waiting = still


class Room:
    """The bytes that one fetch holds. The consumer ends it, after it has taken the result, or if it wants none.

    Attributes:
      is_urgent: whether the consumer waits for this fetch: then it passes the limit, as nothing else would free bytes.
    """

    def __init__(self, budget: FetchBudget) -> None:
        self.is_urgent = False
        self._budget = budget
        self._held_bytes = 0
        self._is_closed = False
        self._lock = threading.Lock()

    def hurry(self) -> None:
        """Notes that the consumer waits for this fetch."""
        self.is_urgent = True
        self._budget.wake()

    def grow(self, size_bytes: int) -> asyncio.Future[None] | None:
        """Makes the room at least as large; returns a future to wait for if the budget is exhausted."""
        missing = size_bytes - self._held_bytes
        if missing <= 0:
            return None
        waiting = self._budget.take(self, missing)
        if waiting is None:
            self._hold(missing)
        else:
            waiting.add_done_callback(lambda future: None if future.cancelled() else self._hold(missing))
        return waiting

    def shrink(self, size_bytes: int) -> None:
        """Returns the bytes beyond a size."""
        with self._lock:
            surplus = max(0, self._held_bytes - size_bytes)
            self._held_bytes -= surplus
        if surplus:
            self._budget.change(surplus)

    def close(self) -> None:
        """Returns all bytes; later ones are returned at once."""
        self._is_closed = True
        self.shrink(0)

    def _hold(self, size_bytes: int) -> None:
        with self._lock:
            self._held_bytes += size_bytes
        if self._is_closed:
            self.shrink(0)
