"""Which of docker, podman and buildah builds images here, which runs them, and how."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BUILDERS = ("docker", "podman", "buildah")
RUNNERS = ("docker", "podman")
MEMORY = "512m"
"""The limit that the CPU image is tested with."""

# Where there is no systemd, the machine is most likely a container itself, and a build needs no second one around it.
NESTED = not Path("/run/systemd/system").exists()


class NoEngine(Exception):
    """No engine of these works here."""


def environment() -> dict[str, str]:
    """What an engine is started with."""
    ours = {"BUILDAH_ISOLATION": "chroot", "CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf"))}
    return {**(ours if NESTED else {}), **os.environ}


def find(names: tuple[str, ...]) -> str:
    """The first engine of these that answers.

    Raises:
        NoEngine: if none does.
    """
    for name in names:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if shutil.which(name) and run([name, "info"], check=False, **silent).returncode == 0:
            return name
    raise NoEngine(f"none of {', '.join(names)} works here; on Debian: apt-get install podman runc catatonit")


def run(command: list[str], *, check: bool = True, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run an engine's command, with its own words on our standard error."""
    # Podman's monitor leaves an empty file named `oom` where it was started, when the kernel kills somebody.
    options = {"cwd": tempfile.gettempdir(), **options}
    return subprocess.run(command, check=check, text=True, env=environment(), **options)  # type: ignore[call-overload,no-any-return]


def build_command(engine: str) -> list[str]:
    """How an engine builds; a tag, a file and a directory are to be added."""
    if engine == "docker":
        return ["docker", "build"]
    # Docker's format, because OCI's has no HEALTHCHECK. With the host's network, because a nested one has none.
    nested = ["--network", "host"] if NESTED else []
    return [engine, "build" if engine == "podman" else "bud", "--format", "docker", *nested]


def hardened(engine: str, memory: str = MEMORY) -> list[str]:
    """Options of `run` that give a container as little as the chart does, in the host's network."""
    options = [
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=256",
        "--cpus=2",
        f"--memory={memory}",
        f"--memory-swap={memory}",
        "--network=host",
        "--no-healthcheck",  # a pod has no such thing
    ]
    # Podman's own idea; neither Kubernetes nor docker gives a /tmp.
    return [*options, "--read-only-tmpfs=false"] if engine == "podman" else options
