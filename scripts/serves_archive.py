"""Exits with 0 if a URL answers with a .tar.gz within a few seconds.

Usage: python scripts/serves_archive.py URL
"""

from __future__ import annotations

import http.client
import queue
import sys
import threading
import urllib.request

TIMEOUT_S = 5


def serves_archive(url: str) -> bool:
    """Returns whether a URL answers in time with data that is compressed by gzip."""
    result: queue.Queue[bool] = queue.Queue()
    # In a daemon thread, as the look-up of the host's name has no timeout.
    threading.Thread(target=lambda: result.put(_succeeds(url)), daemon=True).start()
    try:
        return result.get(timeout=TIMEOUT_S)
    except queue.Empty:
        return False


def _succeeds(url: str) -> bool:
    try:
        # No HEAD request: addresses that are signed for GET refuse it.
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            start: bytes = response.read(2)
            return start == b"\x1f\x8b"
    except (OSError, http.client.HTTPException, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(0 if serves_archive(sys.argv[1]) else 1)
