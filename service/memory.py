"""How much memory this process may still take; inside a container that is not what the host has."""

import math
from pathlib import Path

from service.cpus import CGROUP

MEMINFO = Path("/proc/meminfo")


def available_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> float:
    """Bytes that neither the host nor the cgroup has given away; infinite where nobody says."""
    return max(0.0, min(_of_host(meminfo), _of_cgroup(cgroup)))


def _of_host(meminfo: Path) -> float:
    try:
        return int(_fields(meminfo)["MemAvailable:"]) * 1024
    except (OSError, ValueError, KeyError):
        return math.inf


def _of_cgroup(cgroup: Path) -> float:
    v1 = cgroup / "memory"
    return min(
        _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "inactive_file"),
        _left(v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes", v1 / "memory.stat", "total_inactive_file"),
    )


def _left(limit: Path, used: Path, statistics: Path, cached: str) -> float:
    try:
        # The kernel gives up cached files before it kills anybody.
        return int(limit.read_text()) - int(used.read_text()) + int(_fields(statistics)[cached])
    except (OSError, ValueError, KeyError):  # no such file, or "max": unlimited
        return math.inf


def _fields(path: Path) -> dict[str, str]:
    return {words[0]: words[1] for line in path.read_text().splitlines() if len(words := line.split()) > 1}
