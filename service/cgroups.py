"""The control groups of Linux that this process is in: what any of them may not have, it may not have."""

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups(controller: str, root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Directories with the files of the process's own groups and of all above them, up to the top.

    A container sees its own group as the top; under systemd, the group of a unit is some way below. Some may not exist:
    a container of version 1 may be told paths of the host's.

    Args:
        controller: `cpu` or `memory`. Version 1 has a hierarchy for each, version 2 one for all.
        root: where they are mounted.
        membership: lines of a number, controllers (none: version 2) and the path of a group.
    """
    yield from (root, root / controller)
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, group = root / controller if controllers else root, Path(path.lstrip("/"))
        yield from (top / each for each in (group, *group.parents) if each.name)
