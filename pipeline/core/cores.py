"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may use, at least 1.

    That is the cores of the machine that its affinity allows, and no more than the quota of its control
    group: a container with 2 of 64 cores sees all 64, but is stopped whenever it uses more than 2.

    Args:
      root: where `proc` and `sys` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Returns the number of cores, maybe a fraction, that control groups allow; None where they set no limit.

    Both versions of the kernel's interface are read; see its documents cgroup-v2 (`cpu.max`) and
    sched-bwc (`cpu.cfs_quota_us`). A group's limit holds for the groups below it.

    Args:
      root: where `proc` and `sys` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                limits += _limits(root / "sys/fs/cgroup" / mount, path, _quota_v1)
    return min(limits, default=None)


def _limits(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Returns the limits of a group and of those above it, as far as they are visible."""
    relative = Path(path.lstrip("/"))
    limits = []
    for group in (relative, *relative.parents):
        try:
            limit = read(mount / group)
        except (OSError, ValueError):
            continue
        if limit is not None:
            limits.append(limit)
    return limits


def _quota_v2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
