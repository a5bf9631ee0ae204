"""What this machine could do without a server: the same pictures in this process and its children.

Several arrangements of sessions, threads and processes are tried, because which one wins depends on machine and graph;
the best is the limit that every server is compared with.
"""

import multiprocessing
import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Literal

from benchmarks.pictures import Pictures
from service.cpus import available_cpus

Kind = Literal["png", "pixels"]
BATCHES = (1, 8, 32)
WARM_UP_RUNS = 3


def one_session_of_all_threads(bundle: Path, kind: Kind, batch: int, seconds: float) -> float:
    """One caller; ONNX Runtime shares each run among all CPUs."""
    return _rate(Pictures(bundle, threads=available_cpus()), kind, batch, seconds)


def one_session_of_one_thread(bundle: Path, kind: Kind, batch: int, seconds: float) -> float:
    """As many callers as CPUs, each run on the caller's own."""
    pictures, cpus = Pictures(bundle), available_cpus()
    with ThreadPoolExecutor(cpus) as callers:
        return sum(callers.map(_rate, [pictures] * cpus, [kind] * cpus, [batch] * cpus, [seconds] * cpus))


def processes(bundle: Path, kind: Kind, batch: int, seconds: float) -> float:
    """As many processes as CPUs, with a session each."""
    context, cpus = multiprocessing.get_context("spawn"), available_cpus()
    everybody_loaded = context.Barrier(cpus)
    with ProcessPoolExecutor(cpus, context, _load, (bundle, everybody_loaded)) as pool:
        return sum(pool.map(_rate_here, [kind] * cpus, [batch] * cpus, [seconds] * cpus))


Arrangement = Callable[[Path, Kind, int, float], float]
ARRANGEMENTS: dict[str, Arrangement] = {
    "1 session x {cpus} threads": one_session_of_all_threads,
    "1 session x 1 thread, {cpus} callers": one_session_of_one_thread,
    "{cpus} processes x 1 thread": processes,
}
"""Name -> pictures/s of a bundle at a batch size, over some seconds."""


CASES: dict[str, tuple[Arrangement, int]] = {
    f"{name.format(cpus=available_cpus())}, batch {batch}": (arrangement, batch)
    for name, arrangement in ARRANGEMENTS.items()
    for batch in BATCHES
}
"""What is tried: an arrangement and a batch size."""


def pictures_per_second(case: str, bundle: Path, kind: Kind, seconds: float) -> float:
    """`png` includes writing each picture's file, `pixels` ends with the array."""
    arrangement, batch = CASES[case]
    return arrangement(bundle, kind, batch, seconds)


def milliseconds_of_one(bundle: Path, threads: int, seconds: float) -> float:
    """Median time of one picture and its file, nothing else going on."""
    pictures = Pictures(bundle, threads)
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times) <= WARM_UP_RUNS:
        seed, began = secrets.randbelow(2**64), time.perf_counter()
        pictures.png([seed], [seed % pictures.classes])
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[WARM_UP_RUNS:])


def _rate(pictures: Pictures, kind: Kind, batch: int, seconds: float) -> float:
    make = pictures.png if kind == "png" else pictures.pixels
    labels = [index % pictures.classes for index in range(batch)]
    seed = secrets.randbelow(2**63)
    for _ in range(WARM_UP_RUNS):
        make(range(seed, seed + batch), labels)
    began, done = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        make(range(seed + done, seed + done + batch), labels)
        done += batch
    return done / elapsed


_loaded: tuple[Pictures, Barrier] | None = None
"""Of a child process."""


def _load(bundle: Path, everybody_loaded: Barrier) -> None:
    global _loaded  # noqa: PLW0603 - how a pool's initialiser hands on what it made
    _loaded = Pictures(bundle), everybody_loaded


def _rate_here(kind: Kind, batch: int, seconds: float) -> float:
    assert _loaded is not None
    pictures, everybody_loaded = _loaded
    everybody_loaded.wait()
    return _rate(pictures, kind, batch, seconds)
