"""An environment for each rival's package, made when it is missing: the benchmark is one command on a fresh machine."""

import os
import subprocess
import venv
from pathlib import Path

from benchmarks.rivals import Rival

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bench"
"""Environments, bundles and logs; nothing in it needs to be kept."""


class Unavailable(Exception):
    """Something that cannot be measured; the message says why."""


def python_of(rival: Rival) -> Path:
    """The interpreter of a rival's environment, which is made if it is missing or older than what it is made from.

    Raises:
        Unavailable: if pip fails; the message is its last line.
    """
    folder = CACHE / "environments" / rival.package
    python, stamp = folder / "bin" / "python", folder / "made-from"
    project: list[str | Path] = [] if rival.own_pins else ["--constraint", "constraints.txt", "--editable", ".[cpu]"]
    sources = [requirements_of(rival), *([] if rival.own_pins else [ROOT / "constraints.txt", ROOT / "pyproject.toml"])]
    made_from = "".join(source.read_text() for source in sources)
    if stamp.exists() and stamp.read_text() == made_from:
        return python
    venv.create(folder, clear=True, with_pip=True)
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *project]
    pip = subprocess.run(
        [*command, "--requirement", requirements_of(rival)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if pip.returncode:
        raise Unavailable(f"not installed: {last_line(pip.stderr)}")
    stamp.write_text(made_from)
    return python


def without_settings() -> dict[str, str]:
    """The environment without what its owner has chosen for servers of theirs: the defaults are what is measured."""
    return {n: value for n, value in os.environ.items() if not n.startswith(("SERVICE_", "BENTOML_", "OTEL_"))}


def requirements_of(rival: Rival) -> Path:
    """The file that pins what it is made with."""
    return ROOT / "benchmarks" / "rivals" / f"{rival.package}.txt"


def last_line(text: str) -> str:
    """Of a log, for a message."""
    text = text.replace(str(ROOT), ".")  # results are published; where this machine keeps its files is not
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
