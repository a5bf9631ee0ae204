"""Minutes of mixed use, or one of too much: python -m benchmarks.soak [--minutes N] [--overload]

Starts the real server and asks it for everything at once: pictures in all formats, containers of 1 to 500, animations,
samples by their ids, verdicts, cards, scrapes, mistakes, and clients that leave. Every lossless picture is decoded; one
pair of seed and class must have one hash on all routes for all of the time. Fails if a status was not the one that was
due, if pixels differed, if memory or open files grew in the second half, or if the metrics' series did after the first
minute.

With --overload, requests come for a minute ten times as fast as pictures can be made, whether or not earlier ones have
been answered. The pictures are of 256 x 256, so that a client on the same machine can ask that fast. Fails if it could
not, if the server made much less than it can, if what was admitted came after its deadline, if refusals took long, if
anything but 200, 429 and a rare 504 came, or if it left a trace.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from PIL import Image

from benchmarks.bundles import HUGE_SIZE, alone, large
from benchmarks.environments import ROOT, without_settings

MODEL = "fashion"
CLASSES = 10
SEEDS = 400
MOST = 500
MOST_OF_A_SHEET = 100
"""It is sent when all of it has been made, so within the deadline, whatever else a slow machine has to do."""
CALLERS = 12
"""Fewer than SERVICE_MAX_STREAMS: one that has left keeps its place until that is noticed."""
REPORT_SECONDS = 10.0
READY_SECONDS = 120.0
GROWTH_PER_MINUTE = 1.0
"""MB that the worker and its processes may grow by in each minute of the second half; 1 kB of each request is more."""
FILES_PER_MINUTE = 1.0
"""The same for open files of the worker."""

OVERLOAD_SECONDS = 60.0
DEADLINE = 5.0
GROWTH_UNDER_LOAD = 64.0
RECOVERY_SECONDS = 1.0
"""After the last answer; what has been admitted is made before, which takes up to `DEADLINE`."""
REFUSAL_SECONDS = 0.1
LEAST_SHARE = 0.5
"""Of what it can make, that it must make while it refuses the rest; the client has a share of the CPUs too."""
LEAST_RATE = 0.9
"""Of the rate that was due, at which the requests must really have been sent."""


@dataclass
class Server:
    """A server on a free port, and what is known of its worker."""

    pid: int
    port: int

    @property
    def worker(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return next(int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text())

    @property
    def megabytes(self) -> float:
        """Resident, of the worker and the processes that compute for it."""
        worker = psutil.Process(self.worker)
        return float(sum(each.memory_info().rss for each in (worker, *worker.children(recursive=True)))) / 2**20

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.worker}/fd"))


@contextmanager
def serving(**settings: str) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--port", str(port)],
            cwd=ROOT,
            env={
                **without_settings(),
                "BENTOML_DO_NOT_TRACK": "true",
                "BENTOML_HOME": home,
                "SERVICE_PROVIDER": "cpu",
                **settings,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            said, deadline = "", time.monotonic() + READY_SECONDS
            while '"ready"' not in said:
                with suppress(httpx2.TransportError):  # not listening yet
                    said = httpx2.get(f"http://127.0.0.1:{port}/readyz").text
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{(Path(home) / 'log').read_text()}{said}\nthe server is not ready")
                time.sleep(0.05)
            yield Server(process.pid, port)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            written = (Path(home) / "log").read_text()
    if "Traceback" in written:
        raise SystemExit(f"{written[written.index('Traceback') :][:5000]}\nthe log has tracebacks; this is the first")


@dataclass
class Findings:
    """What has been seen so far."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    hashes: dict[tuple[int, int], str] = field(default_factory=dict)
    pictures: int = 0
    ids: list[tuple[str, int, int]] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)

    def status(self, what: str, response: httpx2.Response, due: int = 200) -> bool:
        """Count an answer; whether its status is the one that is due."""
        self.answers[what, response.status_code] += 1
        if response.status_code != due:
            self.wrong[f"{what}: {response.status_code} instead of {due}"] += 1
        return response.status_code == due

    def picture(self, what: str, seed: int, label: int, pixels: np.ndarray[Any, Any]) -> None:
        """Compare with the pixels that this seed and class had before."""
        self.pictures += 1
        found = hashlib.sha256(pixels.tobytes()).hexdigest()
        if self.hashes.setdefault((seed, label), found) != found:
            self.wrong[f"{what}: other pixels for a seed"] += 1

    def same(self, what: str, ask: object, content: bytes) -> None:
        """Compare an answer with what the same request had before, byte by byte."""
        found = hashlib.sha256(content).hexdigest()
        if self.bodies.setdefault(f"{what} {json.dumps(ask)}", found) != found:
            self.wrong[f"{what}: other bytes for a request"] += 1


def pixels_of(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)))


async def generate(client: httpx2.AsyncClient, findings: Findings) -> None:
    seed, label = random.randrange(SEEDS), random.randrange(CLASSES)
    format_ = random.choice(["png", "webp", "jpeg"])
    response = await client.post("/generate", json={"seed": seed, "class": label, "format": format_})
    if findings.status("/generate", response):
        findings.same("/generate", [seed, label, format_], response.content)
        if format_ == "png":
            findings.picture("/generate", seed, label, pixels_of(response.content))
            findings.ids = [*findings.ids[-99:], (response.headers["x-sample-id"], seed, label)]


async def sample(client: httpx2.AsyncClient, findings: Findings) -> None:
    first, label = random.randrange(SEEDS), random.randrange(CLASSES)
    format_ = random.choice(["zip", "tar", "npz", "json", "sheet"])
    count = random.randint(1, MOST_OF_A_SHEET if format_ == "sheet" else MOST)
    ask = {"seed": first, "count": count, "classes": label, "format": format_}
    response = await client.post("/sample", json=ask)
    if not findings.status(f"/sample {format_}", response):
        return
    pictures = await asyncio.to_thread(unpack, format_, response.content)
    if format_ != "sheet" and len(pictures) != count:
        findings.wrong[f"/sample {format_}: {len(pictures)} pictures instead of {count}"] += 1
    for index, picture in enumerate(pictures[:count]):
        findings.picture(f"/sample {format_}", first + index, label, picture)


def unpack(format_: str, content: bytes) -> list[np.ndarray[Any, Any]]:
    match format_:
        case "zip":
            archive = zipfile.ZipFile(io.BytesIO(content))
            return [pixels_of(archive.read(name)) for name in archive.namelist()]
        case "tar":
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                files = [tar.extractfile(member) for member in tar if member.name.endswith(".png")]
                return [pixels_of(file.read()) for file in files if file is not None]
        case "npz":
            return list(np.load(io.BytesIO(content))["pixels"].squeeze(-1))
        case "json":
            return [pixels_of(base64.b64decode(each["image"])) for each in json.loads(content)["samples"]]
    sheet = pixels_of(content)  # square pictures, row by row
    side = 28
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    return list(sheet.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side))


async def interpolate(client: httpx2.AsyncClient, findings: Findings) -> None:
    start, end, label = random.randrange(20), random.randrange(20), random.randrange(CLASSES)
    format_ = random.choice(["gif", "webp", "sheet", "zip"])
    ask = {"from": start, "to": end, "class": label, "steps": 30, "format": format_}
    response = await client.post("/interpolate", json=ask)
    if findings.status(f"/interpolate {format_}", response):
        findings.same("/interpolate", ask, response.content)
        if format_ == "zip":
            findings.picture("/interpolate", start, label, unpack("zip", response.content)[0])


async def again(client: httpx2.AsyncClient, findings: Findings) -> None:
    if findings.ids:
        id_, seed, label = random.choice(findings.ids)
        response = await client.get(f"/samples/{id_}", headers={"Accept": "image/png"})
        if findings.status("/samples/{id}", response):
            findings.picture("/samples/{id}", seed, label, pixels_of(response.content))


async def verify(client: httpx2.AsyncClient, findings: Findings) -> None:
    if findings.ids:
        picture = await client.get(f"/samples/{random.choice(findings.ids)[0]}", headers={"Accept": "image/png"})
        if not findings.status("/samples/{id}", picture):
            return
        response = await client.post("/verify", content=picture.content, headers={"Content-Type": "image/png"})
        if findings.status("/verify", response) and response.json()["match"] != "bytes":
            findings.wrong["/verify: not recognised"] += 1


async def look(client: httpx2.AsyncClient, findings: Findings) -> None:
    for path in ("/models", f"/models/{MODEL}", f"/models/{MODEL}/samples.png", "/livez", "/readyz", "/"):
        findings.status("others", await client.get(path))


async def mistake(client: httpx2.AsyncClient, findings: Findings) -> None:
    text = {"Content-Type": "application/json"}
    mistakes: list[tuple[int, Callable[[], Awaitable[httpx2.Response]]]] = [
        (400, lambda: client.post("/generate", content=b"{", headers=text)),
        (404, lambda: client.get(f"/{random.random()}")),
        (404, lambda: client.post("/generate", json={"model": str(random.random())})),
        (405, lambda: client.get("/generate")),
        (406, lambda: client.post("/generate", json={"class": 0}, headers={"Accept": "text/html"})),
        (413, lambda: client.post("/generate", content=b" " * 100_000, headers=text)),
        (415, lambda: client.post("/generate", content=b"{}")),
        (422, lambda: client.post("/sample", json={"count": -1})),
    ]
    status, make = random.choice(mistakes)
    findings.status("mistakes", await make(), status)


LEFT: list[tuple[str, dict[str, int]]] = [
    ("/generate", {"class": 0}),
    ("/sample", {"count": MOST}),
    ("/interpolate", {"from": 1, "to": 2, "class": 0}),
]


async def leave(client: httpx2.AsyncClient, findings: Findings) -> None:
    """Go before the answer has come, in the middle of it, or with half of the request unsent."""
    path, ask = random.choice(LEFT)
    body = json.dumps(ask).encode()
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    writer.write(request[: random.choice([len(request), len(head) + 3, 20])])
    await asyncio.sleep(random.choice([0, 0.01, 0.1]))
    if random.random() < 0.5:
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(100), 0.05)
    writer.close()
    findings.answers["left", 0] += 1


ACTIONS = {generate: 60, sample: 6, interpolate: 4, again: 15, verify: 5, look: 3, mistake: 12, leave: 10}


async def metrics(client: httpx2.AsyncClient) -> tuple[set[str], float]:
    """Names of the series with their labels, and the rows that wait."""
    lines = [line for line in (await client.get("/metrics")).text.splitlines() if not line.startswith("#")]
    waiting = sum(float(line.split()[-1]) for line in lines if line.startswith("ganery_queue_rows"))
    return {line.rpartition(" ")[0] for line in lines}, waiting


async def soak(server: Server, minutes: float) -> bool:
    findings = Findings()
    began = time.monotonic()
    end = began + 60 * minutes
    seen: list[tuple[float, float, int]] = []  # minutes, megabytes, open files
    early: set[str] = set()
    late: set[str] = set()
    limits = httpx2.Limits(max_connections=4 * CALLERS)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, limits=limits) as client:

        async def call() -> None:
            while time.monotonic() < end:
                (action,) = random.choices(list(ACTIONS), list(ACTIONS.values()))
                await action(client, findings)

        async def watch() -> None:
            nonlocal late
            while time.monotonic() < end:
                await asyncio.sleep(min(REPORT_SECONDS, end - time.monotonic()))
                elapsed = time.monotonic() - began
                late, waiting = await metrics(client)
                if elapsed <= 60 + REPORT_SECONDS / 2:
                    early.update(late)
                seen.append((elapsed / 60, server.megabytes, server.descriptors))
                print(
                    f"{elapsed:6.0f} s  {sum(findings.answers.values()):8d} requests  {findings.pictures:9d} pictures  "
                    f"{sum(findings.wrong.values()):3d} wrong  {seen[-1][1]:6.1f} MB  {waiting:4.0f} rows wait  "
                    f"{seen[-1][2]:3d} open files  {len(late):4d} series",
                    flush=True,
                )

        await asyncio.gather(watch(), *(call() for _ in range(CALLERS)))
    times, *grown = zip(*[point for point in seen if point[0] >= minutes / 2], strict=True)
    slope, opened = (float(np.polyfit(times, each, 1)[0]) if len(times) > 2 else 0.0 for each in grown)
    new = sorted(late - early)
    print("\n| request | status | answers |\n|---|---|---|")
    for (what, status), count in sorted(findings.answers.items()):
        print(f"| {what} | {status or 'gone'} | {count} |")
    print("\n| what | found | due |\n|---|---|---|")
    print(f"| wrong statuses, pixels or bytes | {sum(findings.wrong.values())} | 0 |")
    print(f"| pictures compared | {findings.pictures} | one hash for each of {len(findings.hashes)} |")
    print(f"| growth in the second half, MB a minute | {slope:.2f} | at most {GROWTH_PER_MINUTE} |")
    print(f"| memory at the end, MB | {seen[-1][1]:.0f} | |")
    print(f"| open files more in each minute of it | {opened:.2f} | at most {FILES_PER_MINUTE} |")
    print(f"| series that came after the first minute | {len(new)} | 0 |")
    for line, count in findings.wrong.most_common():
        print(f"WRONG {count} x {line}")
    for line in new:
        print(f"NEW {line}")
    return not findings.wrong and slope <= GROWTH_PER_MINUTE and opened <= FILES_PER_MINUTE and not new


@dataclass
class Load:
    """Answers to one request each: status, seconds by the client's clock, seconds by the server's."""

    answers: list[tuple[int, float, float]] = field(default_factory=list)
    retry_after: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    """Connections that ended without an answer."""
    sending: float = 0.0
    """Seconds from the first request to the last."""
    waiting: float = 0.0
    """Seconds from the last request to the last answer."""

    def percentiles(self, status: int, clock: int) -> tuple[float, float]:
        """p50 and p99 of the answers with this status; endless if there is none."""
        seconds = [answer[clock] for answer in self.answers if answer[0] == status] or [np.inf]
        return float(np.percentile(seconds, 50)), float(np.percentile(seconds, 99))


class Caller:
    """Raw requests on connections that are kept: a client that is cheaper than the server."""

    def __init__(self, port: int) -> None:
        self.load = Load()
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, seed: int) -> None:
        body = json.dumps({"seed": seed, "class": 0}).encode()
        head = [
            "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json",
            f"X-Deadline-Ms: {DEADLINE * 1000:.0f}\r\nContent-Length: {len(body)}\r\n\r\n",
        ]
        began = time.monotonic()
        try:
            self.load.answers.append(await self._exchange("\r\n".join(head).encode() + body, began))
        except (OSError, EOFError) as error:
            self.load.failures[type(error).__name__] += 1

    async def _exchange(self, request: bytes, began: float) -> tuple[int, float, float]:
        connection = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = connection
        writer.write(request)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        await reader.readexactly(int(headers["content-length"]))
        total = float(headers["server-timing"].rpartition("total;dur=")[2]) / 1000
        self.load.retry_after |= {headers["retry-after"]} if "retry-after" in headers else set()
        self._free.append(connection)
        return int(status.split()[1]), time.monotonic() - began, total


async def saturate(port: int, callers: int, seconds: float) -> float:
    """Pictures a second for callers that ask again when they are answered."""
    caller = Caller(port)
    end = time.monotonic() + seconds

    async def call(number: int) -> None:
        while time.monotonic() < end:
            await caller.ask(number)

    await asyncio.gather(*(call(number) for number in range(callers)))
    return len(caller.load.answers) / seconds


async def drown(port: int, rate: float, seconds: float) -> Load:
    """Requests that come at a rate, whether or not earlier ones have been answered."""
    caller = Caller(port)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            tasks.create_task(caller.ask(number))
        sent = time.monotonic()
    caller.load.sending, caller.load.waiting = sent - began, time.monotonic() - sent
    return caller.load


async def overload(server: Server, seconds: float) -> bool:
    """Ten times what can be made, and what is left of it afterwards."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:

        async def alone() -> float:
            began = time.monotonic()
            (await client.post("/generate", json={"seed": 0, "class": 0})).raise_for_status()
            return time.monotonic() - began

        capacity = await saturate(server.port, CALLERS, 10)
        usual = float(np.median([await alone() for _ in range(20)]))
        before = server.megabytes
        load = await drown(server.port, 10 * capacity, seconds)
        ended = time.monotonic()
        while await alone() > 5 * usual and time.monotonic() - ended < 60:
            pass
        recovery = time.monotonic() - ended
        _, waiting = await metrics(client)
    growth = server.megabytes - before
    statuses = Counter(status for status, _, _ in load.answers)
    rate, made = len(load.answers) / load.sending, statuses[200] / seconds
    admitted, refused = load.percentiles(200, 2), load.percentiles(429, 2)
    table = {
        "pictures a second for callers that wait": (f"{capacity:.0f}", ""),
        "requests a second, whoever waits": (f"{rate:.0f}", f"{10 * capacity:.0f}, {LEAST_RATE:g} of it at least"),
        "of these answered with pictures": (f"{made:.0f}", f"at least {LEAST_SHARE * capacity:.0f}"),
        "statuses": (str(dict(statuses)), "200, 429; 504 at most 1 in 100"),
        "no answer": (str(dict(load.failures)), "none"),
        "Retry-After": (", ".join(sorted(load.retry_after)), "whole seconds from 1"),
        "admitted, p50 and p99 by the server's clock, s": ("{:.3f} {:.3f}".format(*admitted), f"below {DEADLINE:g}"),
        "admitted, p50 and p99 by the client's clock, s": ("{:.3f} {:.3f}".format(*load.percentiles(200, 1)), ""),
        "refused, p50 and p99 by the server's clock, s": (
            "{:.3f} {:.3f}".format(*refused),
            f"below {REFUSAL_SECONDS:g}",
        ),
        "refused, p50 and p99 by the client's clock, s": ("{:.3f} {:.3f}".format(*load.percentiles(429, 1)), ""),
        "growth, MB": (f"{growth:.1f}", f"at most {GROWTH_UNDER_LOAD:g}"),
        "from the last request to the last answer, s": (f"{load.waiting:.2f}", "what was admitted is made"),
        "as fast as before after that, s": (f"{recovery:.2f}", f"at most {RECOVERY_SECONDS:g}"),
        "rows that wait then": (f"{waiting:.0f}", "0"),
    }
    print("\n| what | found | due |\n|---|---|---|")
    for what, (found, due) in table.items():
        print(f"| {what} | {found} | {due} |")
    return (
        set(statuses) <= {200, 429, 504}
        and not load.failures
        and statuses[429] > 0
        and statuses[504] <= 0.01 * len(load.answers)
        and all(value.isdecimal() and int(value) >= 1 for value in load.retry_after)
        and rate >= LEAST_RATE * 10 * capacity
        and made >= LEAST_SHARE * capacity
        and admitted[1] < DEADLINE
        and refused[1] < REFUSAL_SECONDS
        and growth <= GROWTH_UNDER_LOAD
        and recovery <= RECOVERY_SECONDS
        and waiting == 0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--overload", action="store_true", help=f"{OVERLOAD_SECONDS:g} seconds of it, and nothing else")
    parser.add_argument("--overload-seconds", type=float, default=OVERLOAD_SECONDS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with its server
    # A descriptor for each caller.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if arguments.overload:
        with alone(large(HUGE_SIZE)) as models, serving(SERVICE_MODELS_DIR=str(models)) as server:
            good = asyncio.run(overload(server, arguments.overload_seconds))
    else:
        with serving() as server:
            good = asyncio.run(soak(server, arguments.minutes))
    print("\nGOOD" if good else "\nFAILED")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
