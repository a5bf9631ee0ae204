"""Build the images: `python -m deploy.image cpu`, `gpu` or `bundles`."""

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy import engine, stand_in_base

ROOT = Path(__file__).parents[1]
OFFICIAL = "python:3.11-slim"
TARGETS = ("cpu", "gpu", "bundles")
PULL_SECONDS = 300


def name(target: str) -> str:
    """What the image of a target is called here; whoever publishes it gives it another name."""
    return f"localhost/ganery:{target}"


def base(builder: str) -> str:
    """The official Python image if it can be had, else a stand-in that is made here, which is said."""
    exists = {"docker": ["image", "inspect"], "podman": ["image", "exists"], "buildah": ["inspect", "--type", "image"]}
    quiet: dict[str, Any] = {"check": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for image in (OFFICIAL, stand_in_base.STAND_IN):
        if engine.run([builder, *exists[builder], image], **quiet).returncode == 0:
            return image
    try:
        if engine.run([builder, "pull", OFFICIAL], check=False, timeout=PULL_SECONDS).returncode == 0:
            return OFFICIAL
    except subprocess.TimeoutExpired:
        pass
    print(f"{OFFICIAL} cannot be had here: building on a stand-in from Debian's packages", file=sys.stderr)
    stand_in_base.make(engine.build_command(builder))
    return stand_in_base.STAND_IN


def labels(python: str) -> dict[str, str]:
    """What only this build knows: version, commit, and when that was made."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    version = next(
        line.split('"')[1] for line in (ROOT / "service/__init__.py").read_text().splitlines() if "__version__" in line
    )
    changed = "-changed" if git("status", "--porcelain") else ""
    made = datetime.fromtimestamp(int(git("show", "--no-patch", "--format=%ct", "HEAD")), UTC)
    return {
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.revision": git("rev-parse", "HEAD") + changed,
        "org.opencontainers.image.created": made.isoformat(),
        "org.opencontainers.image.base.name": python,
    }


def build(target: str, extras: str = "") -> None:
    """Build one target and tag it.

    Args:
        target: of the Dockerfile.
        extras: of pyproject.toml besides those of the target, with spaces between them.

    Raises:
        NoEngine: if nothing here builds images.
        subprocess.CalledProcessError: if the build fails; the engine has said why.
    """
    builder = engine.find(engine.BUILDERS)
    python = base(builder)
    described = [f"--label={label}={value}" for label, value in labels(python).items()]
    arguments = [f"--build-arg=PYTHON={python}", f"--build-arg=EXTRAS={extras}"]
    command = [*engine.build_command(builder), "--target", target, *arguments, *described]
    engine.run([*command, "--tag", name(target), "--file", "deploy/Dockerfile", "."], cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__)
    parser.add_argument("target", choices=TARGETS, nargs="?", default="cpu")
    parser.add_argument("--extras", default="", help="of pyproject.toml, as in 's3 tracing'")
    given = parser.parse_args()
    try:
        build(given.target, given.extras)
    except engine.NoEngine as error:
        raise SystemExit(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    print(name(given.target))


if __name__ == "__main__":
    main()
