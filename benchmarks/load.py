"""What clients see: the right pictures first, then how many a second and how late, with wrk as the client."""

import io
import json
import secrets
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from benchmarks.environments import Unavailable
from benchmarks.pictures import Pictures
from benchmarks.servers import Running, ask, png_of

SCRIPT = Path(__file__).with_name("load.lua")
LIMIT_OF_SALT = (2**64 - 1) // 10**9
CHECKED = 48
CHECKED_AT_ONCE = 12
WARM_UP_SECONDS = 1.0
LOOK_SECONDS = 0.25
IDLE_SHARE = 0.2
"""Of one CPU; a server that uses less has nothing left to do."""
MOST_IDLE_LOOKS = 20
TIMEOUT_SECONDS = 30  # wrk gives up after 2 by default, and a slow server's latency would look good


@dataclass(frozen=True)
class Cell:
    """One server under one number of connections."""

    pictures_per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Answers of 400 and more, connections that broke, and requests that had no answer for `TIMEOUT_SECONDS`."""


def require_wrk() -> None:
    """Pass if the load generator is there."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")


def check(running: Running, pictures: Pictures) -> None:
    """Ask for pictures side by side and compare them with those of a bare call.

    Raises:
        Unavailable: if one is not exactly the same, or cannot be had.
    """
    seeds = [secrets.randbelow(2**64) for _ in range(CHECKED)]
    labels = [index % pictures.classes for index in range(CHECKED)]
    server = running.server
    with httpx2.Client(timeout=TIMEOUT_SECONDS) as client, ThreadPoolExecutor(CHECKED_AT_ONCE) as clients:

        def picture(seed: int, label: int) -> bytes:
            return png_of(server, ask(client, server, running.port, seed, label))

        try:
            answers = list(clients.map(picture, seeds, labels))
        except httpx2.HTTPError as error:
            raise Unavailable(f"asked for {CHECKED} pictures, it failed: {error}") from error
    for seed, label, answer, expected in zip(seeds, labels, answers, pictures.png(seeds, labels), strict=True):
        got, wanted = _decoded(answer), _decoded(expected)
        if not np.array_equal(np.asarray(got), np.asarray(wanted)):
            raise Unavailable(f"seed {seed}, class {label}: its pixels are not those of the bare call")
        if server.metadata and got.text != wanted.text:
            raise Unavailable(f"seed {seed}, class {label}: its file says {got.text}, not {wanted.text}")


def measure(running: Running, *, classes: int, connections: int, seconds: float) -> Cell:
    """Warm up, then load.

    Answers that come after the end are not counted: with fewer seconds than a server needs for what all connections
    ask at once, its latency looks better than it is.

    Raises:
        Unavailable: if the server has gone.
    """
    _wrk(running, classes, connections, WARM_UP_SECONDS)
    wait_until_idle(running)
    counted = _wrk(running, classes, connections, seconds)
    good = counted["answers"] - counted["refused"]
    return Cell(
        pictures_per_second=good / counted["seconds"],
        p50_ms=counted["p50_ms"],
        p99_ms=counted["p99_ms"],
        errors=int(counted["refused"] + counted["lost"]),
    )


def wait_until_idle(running: Running) -> None:
    """A client that goes away leaves its requests behind, and many servers compute them all the same."""
    spent = running.cpu_seconds()
    for _ in range(MOST_IDLE_LOOKS):
        time.sleep(LOOK_SECONDS)
        before, spent = spent, running.cpu_seconds()
        if spent - before < IDLE_SHARE * LOOK_SECONDS:
            return


def _wrk(running: Running, classes: int, connections: int, seconds: float) -> dict[str, float]:
    # One thread sends several times what the fastest server here answers, and leaves it the CPUs.
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    command += ["--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT), running.url, "--"]
    command += [running.server.wire, str(classes), str(secrets.randbelow(LIMIT_OF_SALT))]
    wrk = subprocess.run(command, capture_output=True, text=True, check=False)
    if wrk.returncode:
        raise Unavailable(f"wrk ended with {wrk.returncode}: {wrk.stderr.strip()[:200]}")
    counted: dict[str, float] = json.loads(wrk.stdout.splitlines()[-1])
    return counted


def _decoded(png: bytes) -> PngImageFile:
    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    picture.load()
    assert isinstance(picture, PngImageFile)
    return picture
