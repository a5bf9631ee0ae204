"""Starting, watching and stopping a server, ours or a rival's, as a process group of its own on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx2
import psutil

from benchmarks.environments import CACHE, ROOT, Unavailable, last_line, python_of, without_settings
from benchmarks.pictures import BUNDLE_VARIABLE, PORT_VARIABLE
from benchmarks.rivals import RIVALS, Wire
from service.settings import Settings

OURS = ["python", "-m", "service", "serve", "--host", "{host}", "--port", "{port}"]
"""The command line of this project's server; its program lies beside the Python that runs the benchmark."""

READY_SECONDS = 120
STOP_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """One row of the tables."""

    name: str
    title: str
    path: str = "/generate"
    wire: Wire = "json"
    metadata: bool = True
    ready_path: str | None = None
    """What answers 200 when all of it is ready; None if the first picture has to tell."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of this project's server, on top of its defaults."""

    def command(self, port: int) -> list[str]:
        """What to run.

        Raises:
            Unavailable: if the server's packages cannot be installed, or it knows no such setting.
        """
        for variable in self.settings:
            if variable.removeprefix("SERVICE_").lower() not in Settings.model_fields:
                raise Unavailable(f"this version has no setting {variable}")
        if self.name in RIVALS:
            return [str(python_of(RIVALS[self.name])), "-m", f"benchmarks.rivals.{self.name}"]
        program, *arguments = OURS
        return [
            str(Path(sys.executable).with_name(program)),
            *(argument.format(host="127.0.0.1", port=port) for argument in arguments),
        ]


OUR_SERVER = Server("ours", "Ganery", ready_path="/readyz")
EXTRAS: dict[str, dict[str, str]] = {
    "access-log": {"SERVICE_LOG_FORMAT": "json", "SERVICE_ACCESS_LOG": "all"},
    "tracing": {"SERVICE_TRACING": "otlp"},
}
"""What an operator may switch on, whose price is a row of its own."""

SERVERS: dict[str, Server] = {
    "ours": OUR_SERVER,
    **{name: Server(name, rival.title, rival.path, rival.wire, rival.metadata) for name, rival in RIVALS.items()},
    **{
        f"ours+{label}": replace(OUR_SERVER, name=f"ours+{label}", title=f"Ganery, {label}", settings=settings)
        for label, settings in EXTRAS.items()
    },
}


@dataclass(frozen=True)
class Running:
    """A server that has answered."""

    server: Server
    port: int
    process: subprocess.Popen[bytes]
    ready_seconds: float
    """From its start until it was ready and had made its first picture."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.server.path}"

    def cpu_seconds(self) -> float:
        """Spent so far by all its processes."""
        total = 0.0
        for process in _family(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def megabytes(self) -> dict[str, float]:
        """Of all its processes: `pss` counts shared pages once, `rss` once for each process. Linux only."""
        pss = rss = 0
        for process in _family(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                pss, rss = pss + memory.pss, rss + memory.rss
        return {"pss": pss / 2**20, "rss": rss / 2**20}


@contextmanager
def running(server: Server, bundles: Path, first: str) -> Iterator[Running]:
    """Start a server and wait until it makes pictures; stop its whole process group at the end, whatever happens.

    Args:
        bundles: directory whose sub-directories are the bundles; rivals serve `first` alone.

    Raises:
        Unavailable: if it cannot be installed or does not answer; its log says more.
    """
    port = _free_port()
    command = server.command(port)
    log = CACHE / "logs" / f"{server.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    home = tempfile.mkdtemp(prefix="ganery-bench-")  # two BentoML servers with one home wipe each other's files
    environment = {
        **without_settings(),
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": home,
        "SERVICE_PROVIDER": "cpu",
        "SERVICE_MODELS_DIR": str(bundles),
        BUNDLE_VARIABLE: str(bundles / first),
        PORT_VARIABLE: str(port),
        **server.settings,
    }
    with _collector() as endpoint, log.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            seconds = _wait_for_picture(server, port, process, began, log)
            yield Running(server, port, process, seconds)
        finally:
            _stop(process)
            shutil.rmtree(home, ignore_errors=True)


class _Sink(BaseHTTPRequestHandler):
    """Takes what is sent, and says that it is well."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _collector() -> Iterator[str]:
    """Where spans go; its address. A server that cannot send them saves itself half of the work."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as sink:
        thread = Thread(target=sink.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{sink.server_port}"
        finally:
            sink.shutdown()
            thread.join()


def ask(client: httpx2.Client, server: Server, port: int, seed: int, label: int) -> httpx2.Response:
    """One request in the server's own protocol."""
    url = f"http://127.0.0.1:{port}{server.path}"
    if server.wire == "json":
        return client.post(url, json={"seed": seed, "class": label})
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    return client.post(url, content=seed.to_bytes(8, "little") + label.to_bytes(8, "little"), headers=headers)


def png_of(server: Server, response: httpx2.Response) -> bytes:
    """The file in an answer; a tensor comes behind a JSON header."""
    response.raise_for_status()
    start = int(response.headers["Inference-Header-Content-Length"]) if server.wire == "tensor" else 0
    return response.content[start:]


def _wait_for_picture(server: Server, port: int, process: subprocess.Popen[bytes], began: float, log: Path) -> float:
    with httpx2.Client(timeout=READY_SECONDS) as client:
        while time.monotonic() - began < READY_SECONDS:
            if process.poll() is not None:
                raise Unavailable(f"ended with {process.returncode}: {last_line(log.read_text(errors='replace'))}")
            try:
                if _is_ready(client, server, port):
                    return time.monotonic() - began
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
    raise Unavailable(f"no picture after {READY_SECONDS} s: {last_line(log.read_text(errors='replace'))}")


def _is_ready(client: httpx2.Client, server: Server, port: int) -> bool:
    probe = server.ready_path and client.get(f"http://127.0.0.1:{port}{server.ready_path}")
    return (not probe or probe.status_code == 200) and ask(client, server, port, seed=0, label=0).status_code == 200


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = _family(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for survivor in left:
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)
    process.wait()


def _family(pid: int) -> set[psutil.Process]:
    """A process, its descendants, and whatever else is in its group: children outlive a parent that dies."""
    family = {process for process in psutil.process_iter() if _group(process) == pid}
    for process in list(family):
        with suppress(psutil.NoSuchProcess):
            family.update(process.children(recursive=True))
    return family


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
