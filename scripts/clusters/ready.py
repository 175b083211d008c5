"""Exits with 0 if a cluster takes jobs, and with 1 if not.

Usage: python scripts/clusters/ready.py JOB_SERVER [URL KEY NUMBER]

JOB_SERVER is the address of a gRPC server. The JSON object at URL says at KEY how many workers there are; NUMBER is how
many there must be.
"""

from __future__ import annotations

import json
import sys
import urllib.request

import grpc

TIMEOUT_S = 2


def answers(address: str) -> bool:
    """Returns whether a gRPC server answers."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def count(url: str, key: str) -> int:
    """Returns the number at a key of the JSON object at a URL, 0 if there is none."""
    # Without a proxy: the address is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            return int(json.load(answer).get(key, 0))
    except (OSError, ValueError):
        return 0


def is_ready(job_server: str, url: str | None = None, key: str = "", number: str = "0") -> bool:
    """Returns whether a cluster takes jobs; see the usage."""
    return (url is None or count(url, key) >= int(number)) and answers(job_server)


if __name__ == "__main__":
    sys.exit(0 if is_ready(*sys.argv[1:]) else 1)
