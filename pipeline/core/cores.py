"""The number of processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may use, at least 1.

    The number is bounded by the CPU affinity and by the quota of the control group: a container with a quota of
    2 cores sees all 64 cores of its machine, but the kernel throttles it to 2.

    Args:
      root: the directory of `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Returns the number of cores, maybe a fraction, that control groups allow; None if they set no limit.

    The function reads both versions of the kernel's interface; see the kernel documents cgroup-v2 (`cpu.max`) and
    sched-bwc (`cpu.cfs_quota_us`). A group's limit also holds for the groups below it.

    Args:
      root: the directory of `proc` and `sys`.
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
    """Returns the visible limits of a group and of its parents."""
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
