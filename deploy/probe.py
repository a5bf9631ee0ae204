"""Try whether images can be built and containers run here: `python -m deploy.probe`.

A machine that is a container itself may forbid mounts, namespaces or control groups, and its engine notices late. The
command ends with 0 if both work, and otherwise with 3, having said why not.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy import engine, image

CANNOT = 3
"""What the command ends with; an error of its own is 1."""
NAME = "localhost/ganery-probe"
SECONDS = 120


def why_not() -> str | None:
    """What keeps this machine from building an image and running it as `make image-test` does; None if nothing does."""
    try:
        builder, runner = engine.find(engine.BUILDERS), engine.find(engine.RUNNERS)
        python = image.base(builder)
    except engine.NoEngine as error:
        return str(error)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        return f"there is no Python image to build on, and none could be made: {error}"
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "Dockerfile").write_text(f"FROM {python}\nRUN python -c pass\n")
        build = [*engine.build_command(builder), "--no-cache", "--tag", NAME, directory]
        run = [runner, "run", "--rm", *engine.hardened(runner), NAME, "python", "-c", "pass"]
        try:
            return _failure(build) or _failure(run)
        finally:
            _failure([builder, "rmi", NAME])


def _failure(command: list[str]) -> str | None:
    """What a command that fails says last."""
    ways: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": SECONDS}
    try:
        ended = engine.run(command, check=False, **ways)
    except subprocess.TimeoutExpired:
        return f"`{' '.join(command[:2])}` took more than {SECONDS} seconds"
    if ended.returncode == 0:
        return None
    said = ended.stdout.strip().splitlines() or ["nothing"]
    return f"`{' '.join(command[:2])}` ended with {ended.returncode} and said: {said[-1]}"


if __name__ == "__main__":
    if (reason := why_not()) is not None:
        print(reason)
        sys.exit(CANNOT)
