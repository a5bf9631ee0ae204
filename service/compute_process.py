"""A process that opens graphs and runs them: python -m service.compute_process FILE_DESCRIPTOR

It answers requests over a connection, in order; an empty message before an answer announces that it comes soon, and
that the next request may be sent. `processes.py` starts it, times it, and ends it. What a graph can do wrong it does
here: take all memory, run without end, crash its runtime.
"""

import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.cpus import is_rationed
from service.engine import Opened, open_bundle
from service.errors import InvalidBundle, ModelFailure
from service.generator import Generator, Measured
from service.manifest import GENERATOR_FILE, Manifest
from service.memory import available_memory
from service.runtime import Provider
from service.tasks import task_of
from service.work import Computed, Result, Work, compute

RESERVE = 0.8
"""Share of what memory there is that opening a graph may take; the rest is for the service beside it."""
COPIES = 3
"""Of the file that are in memory at once: as it came, as it was parsed, as ONNX Runtime holds it."""
AWAKE_SECONDS = 0.002
"""How long it looks for its next request before it sleeps; under load most have come by then. A CPU that has gone to
sleep wakes in 0.03 ms or, where it is a virtual one, in up to 5 ms. Not at all where CPU time is rationed."""
OUT_OF_MEMORY = ("alloc", "bfc_arena")
"""In what ONNX Runtime says when it gets no memory."""

Generators = dict[str, Generator]

Announce = Callable[[], object]
"""Says that the answer comes soon."""


@dataclass(frozen=True)
class Open:
    """Open a bundle's graph for the first time, with all checks."""

    directory: Path
    manifest: Manifest
    provider: Provider
    max_bundle_bytes: int
    max_memory: int | None
    """Bytes besides the graph itself; None is without limit."""

    def __call__(self, generators: Generators, announce: Announce) -> Opened:
        max_memory = None if self.max_memory is None else int(min(self.max_memory, RESERVE * available_memory()))
        limit = None if max_memory is None else max_memory + COPIES * _size(self.directory / GENERATOR_FILE)
        try:
            with limited_memory(limit):
                generators[self.manifest.name], opened = open_bundle(
                    self.directory, self.manifest, self.provider, self.max_bundle_bytes
                )
        except (InvalidBundle, MemoryError) as error:
            if isinstance(error, MemoryError) or any(sign in error.detail.lower() for sign in OUT_OF_MEMORY):
                raise InvalidBundle(f"its graph needs more than {max_memory} bytes of memory: {error}") from error
            raise
        return opened


@dataclass(frozen=True)
class OpenAgain:
    """Open a graph that another process has opened and checked."""

    model: bytes
    manifest: Manifest
    provider: Provider
    measured: Measured

    def __call__(self, generators: Generators, announce: Announce) -> None:
        task = task_of(self.manifest)
        generators[self.manifest.name] = Generator(self.model, task, provider=self.provider, measured=self.measured)


@dataclass(frozen=True)
class Compute:
    """Run works as one batch."""

    name: str
    works: Sequence[Work[Any]]

    def __call__(self, generators: Generators, announce: Announce) -> Computed:
        computed = compute(generators[self.name], self.works, announce)
        return replace(computed, results=[_portable(result) for result in computed.results])


def main(descriptor: int) -> None:
    """Answer requests until there are no more."""
    # They come to the whole group of processes; the server says when it is over, by closing the connection.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    _be_killed_first()
    connection = Connection(descriptor)
    requests = select.poll()
    requests.register(descriptor, select.POLLIN)
    awake_seconds = 0.0 if is_rationed() else AWAKE_SECONDS
    generators: Generators = {}
    while True:
        _stay_awake(requests, awake_seconds)
        try:
            request = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        try:
            answer = request(generators, partial(connection.send_bytes, b""))
        except Exception as error:
            answer = portable(error)
        connection.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _stay_awake(requests: select.poll, seconds: float) -> None:
    """Return when there is something to read, or when it is time to sleep. Whoever else wants the CPU has it."""
    until = time.monotonic() + seconds
    while not requests.poll(0) and time.monotonic() < until:
        os.sched_yield()


def portable(error: Exception) -> Exception:
    """The same error, or one that says the same, as it can be sent to another process."""
    error.add_note("".join(traceback.format_exception(error)))  # which pickle would lose
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ModelFailure(f"{type(error).__name__} in the process that computes")
    return error


def _portable(result: Result) -> Result:
    return result if result.error is None else replace(result, error=portable(result.error))


@contextmanager
def limited_memory(max_bytes: int | None) -> Iterator[None]:
    """Let allocations fail that would take more than this beside what the process has. Linux alone holds to it.

    Only for so long: what later batches of all bundles take together is not the trial's.
    """
    if sys.platform != "linux" or max_bytes is None:
        yield
        return
    import resource  # noqa: PLC0415

    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + max_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # whoever reads it says so


def _be_killed_first() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        pass  # the limit above stands


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    import onnxruntime  # noqa: F401 - now, while the server starts

    import service.formats  # noqa: F401

    # Under its own name: what it is sent refers to `service.compute_process`, not to `__main__`.
    from service.compute_process import main as run

    run(int(sys.argv[1]))
