"""Exits with 0 if a URL answers within a few seconds.

Usage: python scripts/url_answers.py URL
"""

from __future__ import annotations

import http.client
import queue
import sys
import threading
import urllib.request

TIMEOUT_S = 5


def answers(url: str) -> bool:
    """Returns whether a HEAD request to a URL succeeds in time."""
    result: queue.Queue[bool] = queue.Queue()
    # In a daemon thread, as the look-up of the host's name has no timeout.
    threading.Thread(target=lambda: result.put(_succeeds(url)), daemon=True).start()
    try:
        return result.get(timeout=TIMEOUT_S)
    except queue.Empty:
        return False


def _succeeds(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S):
            return True
    except (OSError, http.client.HTTPException, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
