"""Graphs are opened and run in processes of their own, beside the server and not in it.

They share no lock of Python's with it, nor with one another, and what a graph from a stranger asks for does no harm
there: it may want a terabyte, compute for a year, or crash its runtime. None of that can be read off a file, and none
of it can be stopped within a process: one operator of ONNX Runtime cannot be interrupted. It is no wall against code
that breaks out of ONNX Runtime: answers are unpickled, and only the user of the service keeps it from anything.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from queue import Empty, PriorityQueue
from threading import BoundedSemaphore, Lock, Thread, Timer
from time import sleep
from typing import Any

from service.breaker import Breaker
from service.compute_process import Compute, Open, OpenAgain
from service.cpus import available_cpus
from service.engine import Opened, read_graph
from service.errors import GaneryError, InvalidBundle, ModelFailure, NotReady, Stopping
from service.files import MAX_BUNDLE_BYTES
from service.manifest import Manifest
from service.process import NeverBegun, Process, ProcessEnded, ProcessTooSlow, taken_early
from service.runtime import Provider
from service.turns import Turns
from service.work import Computed, Result, Work, join

RETRY_SECONDS = 10

logger = logging.getLogger(__name__)


class _Idle:
    """Processes that take a batch: those first that have nothing to do, and of them the latest, whose caches are warm;
    then those that write the files of one, and of them the earliest; then those yet to be started, which are None.
    """

    def __init__(self) -> None:
        self._queue: PriorityQueue[tuple[int, int, Process | None]] = PriorityQueue()
        self._count = count()

    def put(self, process: Process | None, *, busy: bool = False) -> None:
        order = next(self._count)
        self._queue.put((2 if process is None else int(busy), order if busy else -order, process))

    def get(self, *, block: bool = True) -> Process | None:
        """
        Raises:
            queue.Empty: if there is none, and it is not to be waited for.
        """
        return self._queue.get(block)[-1]


def how_many(count: int | None, provider: Provider) -> int:
    """One process for each CPU if CPUs are what computes. The work of a GPU is one stream."""
    if count is not None:
        return count
    return available_cpus() if provider == "cpu" or not _may_use_gpu() else 1


class Processes:
    """An `Engine` of some processes, each with all bundles; one that has ended is replaced by another.

    Args:
        count: of processes.
        provider: the hardware to run on.
        trial_seconds: for a bundle to open and to make its first pictures; 0 is without limit, of memory too.
        trial_bytes: memory for that, besides the file itself. A GPU's driver takes address space as it likes, so with a
            build for GPUs it is not limited.
        max_bundle_bytes: of one bundle, all files together.
        stall_seconds: in which a process that computes a batch must say something, or it is replaced; None is without
            limit.
        on_end: is called when a process has ended that should not have.
    """

    def __init__(
        self,
        count: int,
        provider: Provider,
        *,
        trial_seconds: float,
        trial_bytes: int,
        max_bundle_bytes: int = MAX_BUNDLE_BYTES,
        stall_seconds: float | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._turns = Turns(count)
        self._provider = provider
        self._max_bundle_bytes = max_bundle_bytes
        self._seconds = trial_seconds or None
        limited = trial_seconds and (provider == "cpu" or not _may_use_gpu())
        self._max_memory = trial_bytes if limited else None
        self._on_end = on_end
        self._opened: dict[str, OpenAgain] = {}
        self._breakers: dict[str, Breaker] = {}
        self._idle = _Idle()
        early = taken_early()
        for process in (*[None] * (count - len(early)), *early):
            self._idle.put(process)
        self._running: set[Process] = set()
        for process in early:
            self._enlist(process)
        # One CPU is left to the server, which has imports enough to do meanwhile, and reads the next bundles.
        self._opening = BoundedSemaphore(max(1, available_cpus() - 1))
        self._starting = Lock()
        self._closed = False

    def open(self, directory: Path, manifest: Manifest) -> Opened:
        """See `Engine.open`. A graph that goes beyond its limits is refused as an invalid bundle."""
        request = Open(directory.absolute(), manifest, self._provider, self._max_bundle_bytes, self._max_memory)
        for another in (False, True):  # what ended a process may be another bundle's doing, or the machine's
            try:
                with self._opening, self._process() as (process, _):
                    opened: Opened = process.ask(request, self._seconds)
                    process.opened.add(manifest.name)
                break
            except ProcessTooSlow:
                raise InvalidBundle(
                    "opening its graph and making the first pictures took more than the "
                    f"{self._seconds:g} seconds of SERVICE_TRIAL_SECONDS"
                ) from None
            except ProcessEnded as end:
                if another:
                    raise InvalidBundle(f"opening or running its graph ends the process that tries it, {end}") from None
        # Kept: a process that dies is replaced whatever has become of the files. With a manifest of its own: what
        # others cache in theirs would come in between while it is pickled.
        model = read_graph(directory, manifest, self._max_bundle_bytes)
        self._breakers[manifest.name] = Breaker(manifest.name)
        self._opened[manifest.name] = OpenAgain(model, manifest.model_copy(), self._provider, opened.measured)
        return opened

    def compute(self, name: str, works: Sequence[Work[Any]], ran: Callable[[], object] = lambda: None) -> Computed:
        """See `Engine.compute`. If a process ends, and another one too, each work is tried alone."""
        breaker = self._breakers[name]
        for _ in range(2):
            try:
                breaker.check()
            except NotReady as error:
                return Computed([Result(error=error) for _ in works])
            try:
                try:
                    computed = self._compute(name, works, ran)
                except NeverBegun:  # what ended it was not these works
                    computed = self._compute(name, works, ran)
            except ProcessEnded:
                breaker.ended()
            else:
                breaker.answered()
                return computed
        if len(works) > 1:
            return join([self.compute(name, [work]) for work in works])
        failure = ModelFailure("the process that computed it has ended, twice; perhaps there is too little memory")
        return Computed([Result(error=failure)])

    def turns(self, provider: str) -> Turns:
        return self._turns

    def start(self) -> None:
        """See `Engine.start`; it does not wait, for one process is ready and the others are not needed yet."""
        idle = []
        with suppress(Empty):
            while True:
                idle.append(self._idle.get(block=False))
        for process in idle:
            if process is not None and process.opened >= set(self._opened):
                self._idle.put(process)
            else:
                Thread(target=self._prepare, args=(process,), daemon=True).start()

    def close(self) -> None:
        with self._starting:
            self._closed = True
            running = list(self._running)
        for process in running:
            process.kill()

    def _compute(self, name: str, works: Sequence[Work[Any]], ran: Callable[[], object]) -> Computed:
        with self._process() as (process, release):

            def announced() -> None:
                release()
                ran()

            self._open_in(process, name)
            computed: Computed = process.ask(Compute(name, works), self._stall_seconds, announced)
        return computed

    def _open_in(self, process: Process, name: str) -> None:
        if name not in process.opened:
            process.ask(self._opened[name], self._seconds)
            process.opened.add(name)

    def _prepare(self, process: Process | None) -> None:
        """Start one that is not, open all in it, and add it to the idle ones."""
        try:
            process = process or self._start()
        except GaneryError as error:
            if not self._closed:
                self._do_without(error)
            return
        try:
            with self._using(process):
                for name in self._opened:
                    self._open_in(process, name)
        except Exception as error:
            if not self._closed:
                logger.error("a process that computes did not open all bundles: %s", error)

    def _do_without(self, error: GaneryError) -> None:
        """Compute with one process less for a while: a machine that cannot start one now may do so later."""
        logger.error("one process less computes for %d seconds: %s", RETRY_SECONDS, error.detail)
        later = Timer(RETRY_SECONDS, self._idle.put, [None])
        later.daemon = True
        try:
            later.start()
        except RuntimeError:  # no thread either
            sleep(1)
            self._idle.put(None)

    @contextmanager
    def _process(self) -> Iterator[tuple[Process, Callable[[], None]]]:
        """One that is idle, or the first that will be; started if it is not there. See `_using`."""
        while (process := self._idle.get()) is None:
            try:
                process = self._start()
                break
            except GaneryError as error:
                if self._closed or not self._running:
                    self._idle.put(None)
                    raise
                self._do_without(error)
        with self._using(process) as release:
            yield process, release

    @contextmanager
    def _using(self, process: Process) -> Iterator[Callable[[], None]]:
        """Give it back to the idle ones in the end, or sooner by calling what is yielded; or its place if it ended."""
        place: list[Process | None] = [process]

        def release(*, busy: bool = False) -> None:
            while place:
                self._idle.put(place.pop(), busy=busy)

        try:
            yield partial(release, busy=True)
        except ProcessEnded:
            if place:
                place[0] = None
            self._report_end(process)
            raise
        finally:
            release()

    def _report_end(self, process: Process) -> None:
        """Say that it has ended, once: two batches may have been sent to it."""
        with suppress(KeyError):
            self._running.remove(process)
            if not self._closed:
                logger.error(
                    "process %d, which computes, has ended %s; another one takes its place", process.pid, process.ending
                )
                self._on_end()

    def _start(self) -> Process:
        with self._starting:
            if self._closed:
                raise Stopping("this replica is stopping; send the request again, to another one")
            try:
                process = Process()
            except OSError as error:
                raise ModelFailure(
                    f"no process can be started to compute in: {error.strerror}; SERVICE_PROCESSES=0 needs none"
                ) from error
            self._enlist(process)
            return process

    def _enlist(self, process: Process) -> None:
        self._running.add(process)
        if self._stall_seconds is not None:
            process.limit_sending(self._stall_seconds)


def _may_use_gpu() -> bool:
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True
