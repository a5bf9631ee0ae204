"""The image in a container, hardened as in the chart."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from deploy import engine, image

PATIENCE = 90  # seconds; a busy machine is no failure


def runner() -> str:
    """The engine that runs containers here; without one the test is skipped."""
    try:
        return engine.find(engine.RUNNERS)
    except engine.NoEngine as error:
        pytest.skip(str(error))


class Container:
    """A running container of an image, in the host's network and on its loopback only."""

    def __init__(self, runs: str, identity: str, port: int, started: float) -> None:
        self.runs = runs
        self.identity = identity
        self.port = port
        self.started = started
        self.address = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.address, timeout=PATIENCE)

    def engine(self, *arguments: str, check: bool = True) -> str:
        """What an engine's command says."""
        command = [self.runs, *arguments]
        return engine.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.strip()

    def python(self, code: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run code inside, as the user that serves."""
        command = [self.runs, "exec", self.identity, "python", "-c", code]
        return engine.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def wait_for(self, text: str) -> float:
        """Ask /readyz until it says so; the seconds since the container was started."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if text in self.client.get("/readyz").text:
                    return time.monotonic() - self.started
            except httpx2.TransportError:
                pass  # not listening yet
            time.sleep(0.02)
        pytest.fail(f"/readyz never said {text!r}: {self.engine('logs', self.identity)}")

    def exit_code(self) -> int:
        """How it ended, once it has."""
        return int(self.engine("wait", self.identity).split()[-1])


@contextmanager
def running(
    models: Path | None = None, *, target: str = "cpu", memory: str = engine.MEMORY, **settings: str
) -> Iterator[Container]:
    """An image, with its own bundles or with others."""
    runs = runner()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = engine.hardened(runs, memory)
    if models is not None:
        options.append(f"--volume={models}:/models:ro")
    options += [f"--env={name}={value}" for name, value in settings.items()]
    command = [
        runs,
        "run",
        "--detach",
        *options,
        image.name(target),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    started = time.monotonic()
    said = engine.run(command, stdout=subprocess.PIPE).stdout
    container = Container(runs, said.split()[-1], port, started)
    try:
        with container.client:
            yield container
    finally:
        engine.run([runs, "rm", "--force", container.identity], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def copy_of_models(directory: Path) -> Path:
    """The shipped bundles, to be broken; any user may read them."""
    models = directory / "models"
    shutil.copytree(image.ROOT / "models", models)
    for path in (models, *models.rglob("*")):
        os.chmod(path, 0o755)
    return models
