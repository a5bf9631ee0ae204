"""Servers in processes of their own, on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
BENTOML = Path(sys.executable).with_name("bentoml")
SERVE = [sys.executable, "-m", "service", "serve"]
BENTOML_SERVE = [str(BENTOML), "serve", "service.api:Ganery"]
PATIENCE = 60


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def wait_for(self, text: str) -> None:
        """Ask /readyz until it says so."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if text in self.client.get("/readyz").text:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            time.sleep(0.05)
        pytest.fail(f"/readyz never said {text!r}: {self.log.read_text()}")

    def send_head(self, length: int, **headers: str) -> socket.socket:
        """Begin a POST /generate, and leave its body to come."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(length), **headers}
        lines = ["POST /generate HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return connection

    def workers(self) -> list[int]:
        """Processes that a supervisor has started to serve."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        command_lines = {int(child): Path(f"/proc/{child}/cmdline") for child in children}
        return [child for child, line in command_lines.items() if line.exists() and "spawn_main" in line.read_text()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(home: Path, models: Path, *, command: list[str] = SERVE, **settings: str) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SERVICE_", "BENTOML_"))}
    environment |= {
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(home / "bentoml"),
        "SERVICE_MODELS_DIR": str(models),
        "SERVICE_PROVIDER": "cpu",
        **settings,
    }
    log = home / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        server = Server(process, port, log)
        try:
            with server.client:
                yield server
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)
