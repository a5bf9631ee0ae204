"""Print what extras of `pyproject.toml` install, without the project itself: `python deploy/requirements.py cpu s3`."""

import sys
import tomllib
from pathlib import Path


def requirements(*extras: str, pyproject: Path = Path("pyproject.toml")) -> list[str]:
    """The project's own dependencies and those of the extras, as pip reads them.

    Raises:
        SystemExit: if there is no such extra.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    known = project["optional-dependencies"]
    if unknown := set(extras) - set(known):
        raise SystemExit(f"no extra {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [*project["dependencies"], *(one for extra in extras for one in known[extra])]


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
