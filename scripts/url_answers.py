"""Exits with 0 if a URL answers within a few seconds.

Usage: python scripts/url_answers.py URL
"""

from __future__ import annotations

import http.client
import sys
import urllib.request

TIMEOUT_S = 5


def answers(url: str) -> bool:
    """Says whether a HEAD request to a URL succeeds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S):
            return True
    except (OSError, http.client.HTTPException):
        return False


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
