"""How much memory this process may still take; inside a container that is not what the host has."""

import math
from collections.abc import Iterable
from pathlib import Path

from service.cgroups import groups

MEMINFO = Path("/proc/meminfo")


def available_memory(cgroups: Iterable[Path] | None = None, meminfo: Path = MEMINFO) -> float:
    """Bytes that neither the host nor the process's cgroups have given away; infinite where nobody says."""
    return max(0.0, min(_of_host(meminfo), *map(_of_cgroup, groups("memory") if cgroups is None else cgroups)))


def _of_host(meminfo: Path) -> float:
    try:
        return int(_fields(meminfo)["MemAvailable:"]) * 1024
    except (OSError, ValueError, KeyError):
        return math.inf


def _of_cgroup(group: Path) -> float:
    """In version 2 or in version 1."""
    statistics = group / "memory.stat"
    return min(
        _left(group / "memory.max", group / "memory.current", statistics, "inactive_file"),
        _left(group / "memory.limit_in_bytes", group / "memory.usage_in_bytes", statistics, "total_inactive_file"),
    )


def _left(limit: Path, used: Path, statistics: Path, cached: str) -> float:
    try:
        # The kernel gives up cached files before it kills anybody.
        return int(limit.read_text()) - int(used.read_text()) + int(_fields(statistics)[cached])
    except (OSError, ValueError, KeyError):  # no such file, or "max": unlimited
        return math.inf


def _fields(path: Path) -> dict[str, str]:
    return {words[0]: words[1] for line in path.read_text().splitlines() if len(words := line.split()) > 1}
