"""Print what an extra of `pyproject.toml` installs, without the project itself: `python deploy/requirements.py cpu`."""

import sys
import tomllib
from pathlib import Path


def requirements(extra: str, pyproject: Path = Path("pyproject.toml")) -> list[str]:
    """The project's own dependencies and those of the extra, as pip reads them."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][extra]]


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), sep="\n")
