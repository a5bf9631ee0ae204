"""How many CPUs this process may really use; inside a container that is not how many the host has."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """CPUs allowed by scheduling affinity and by the cgroup's quota, rounded up, at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows know no affinity
        allowed = os.cpu_count() or 1
    quota = _quota(cgroup) or math.inf
    return max(1, min(allowed, math.ceil(quota) if math.isfinite(quota) else allowed))


def is_rationed(cgroup: Path = CGROUP) -> bool:
    """Whether the cgroup has a quota of CPU time: what is used up while waiting is missing afterwards."""
    return _quota(cgroup) is not None


def _quota(cgroup: Path) -> float | None:
    return _quota_v2(cgroup) or _quota_v1(cgroup)


def _quota_v2(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max": unlimited
        return None


def _quota_v1(cgroup: Path) -> float | None:
    try:
        quota = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
