"""How many CPUs this process may really use; inside a container that is not how many the host has."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.cgroups import groups


def available_cpus(cgroups: Iterable[Path] | None = None) -> int:
    """CPUs allowed by scheduling affinity and by the quotas of the process's cgroups, rounded up, at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows know no affinity
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(min(_quotas(cgroups), default=allowed))))


def is_rationed(cgroups: Iterable[Path] | None = None) -> bool:
    """Whether a cgroup has a quota of CPU time: what is used up while waiting is missing afterwards."""
    return any(_quotas(cgroups))


def _quotas(cgroups: Iterable[Path] | None) -> Iterator[float]:
    """Those that there are, in CPUs."""
    for group in groups("cpu") if cgroups is None else cgroups:
        for read in (_version_2, _version_1):
            try:
                quota, period = read(group)
            except (OSError, ValueError):  # no such file, or "max": unlimited
                continue
            if quota > 0:  # -1 is unlimited
                yield quota / period


def _version_2(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text().split()
    return int(quota), int(period)


def _version_1(group: Path) -> tuple[int, int]:
    return int((group / "cpu.cfs_quota_us").read_text()), int((group / "cpu.cfs_period_us").read_text())
