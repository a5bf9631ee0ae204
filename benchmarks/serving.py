"""What HTTP costs on top of a bare call, in one run: python benchmarks/serving.py [--requests N]

Starts the real server on a free loopback port and measures, with one connection and the machine otherwise quiet,
start-up, memory and the time of POST /generate; the reference is the same bundle's picture made and encoded in this
process. Read the ratios: the absolute figures are the machine's.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from tqdm import tqdm

from service.bundle import Bundle
from service.formats import FORMATS

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60
ROUNDS = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(port: int, home: str) -> subprocess.Popen[bytes]:
    bentoml = Path(sys.executable).with_name("bentoml")
    return subprocess.Popen(
        [bentoml, "serve", "service.api:Ganery", "--host", "127.0.0.1", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": home, "SERVICE_PROVIDER": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds_until_ready(client: httpx2.Client, began: float) -> float:
    while time.monotonic() - began < READY_SECONDS:
        try:
            if client.get("/readyz").status_code == 200:
                return time.monotonic() - began
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"the server was not ready after {READY_SECONDS} s")


def resident_megabytes(pid: int) -> float:
    """Proportional set size of a process and its children: shared pages count once (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return own + sum(resident_megabytes(int(child)) for child in children)


def median_milliseconds(call: Callable[[int], object], count: int, title: str) -> float:
    for seed in range(20):
        call(seed)
    times = []
    for seed in tqdm(range(count), desc=title, leave=False):
        began = time.perf_counter()
        call(seed)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion")
    parser.add_argument("--requests", type=int, default=500, help=f"per round, of which there are {ROUNDS}")
    arguments = parser.parse_args()

    bundle = Bundle.load(ROOT / "models" / arguments.model, provider="cpu")
    class_ = 0 if bundle.manifest.classes else None
    encode = FORMATS["png"].encode

    def in_process(seed: int) -> bytes:
        sample = bundle.sample(seed=seed, class_=class_)
        return encode(bundle.picture(sample), sample)

    port = free_port()
    with tempfile.TemporaryDirectory() as home, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        began = time.monotonic()
        server = start_server(port, home)
        try:
            ready = seconds_until_ready(client, began)
            idle = resident_megabytes(server.pid)

            def over_http(seed: int) -> bytes:
                body = {"model": arguments.model, "seed": seed, **({} if class_ is None else {"class": class_})}
                return client.post("/generate", json=body).raise_for_status().content

            assert over_http(42) == in_process(42), "HTTP and the bare call disagree"
            # Interleaved, so that a slow minute of the machine meets both.
            rounds = [
                (
                    median_milliseconds(in_process, arguments.requests, "in process"),
                    median_milliseconds(over_http, arguments.requests, "over HTTP"),
                )
                for _ in range(ROUNDS)
            ]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    bare = statistics.median(round_[0] for round_ in rounds)
    http = statistics.median(round_[1] for round_ in rounds)
    print("| what | value |")
    print("|---|---|")
    print(f"| ready after | {ready:.1f} s |")
    print(f"| memory when idle, all processes | {idle:.0f} MB |")
    print(f"| one picture in process, median | {bare:.2f} ms |")
    print(f"| one picture over HTTP, one connection, median | {http:.2f} ms |")
    print(f"| ratio | {http / bare:.2f} |")


if __name__ == "__main__":
    main()
