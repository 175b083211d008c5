"""Contention for the lock of a data set."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.core.errors import OutputError
from pipeline.storage.lock import DatasetLock

ATTEMPTS = 2
"""The first attempts meet a lock that nobody holds, the second ones a lock that is held."""


def contend(output: str, contenders: int) -> int:
    """Starts threads that try to lock a data set at the same time.

    No thread releases the lock before all threads have tried as often as they may.

    Args:
      output: directory of the data set.
      contenders: number of threads.

    Returns:
      How many threads took the lock; 1 unless the lock is broken.
    """
    barrier = threading.Barrier(contenders, timeout=60)

    def compete(_: int) -> bool:
        lock, taken = DatasetLock(output), False
        for _ in range(ATTEMPTS):
            barrier.wait()
            if not taken:
                try:
                    lock.__enter__()
                    taken = True
                except OutputError:
                    pass
            barrier.wait()
        if taken:
            lock.__exit__()
        return taken

    with ThreadPoolExecutor(contenders) as threads:
        return sum(threads.map(compete, range(contenders)))
