"""Graphs are opened and run in processes of their own, beside the server and not in it.

They share no lock of Python's with it, nor with one another, and what a graph from a stranger asks for does no harm
there: it may want a terabyte, compute for a year, or crash its runtime. None of that can be read off a file, and none
of it can be stopped within a process: one operator of ONNX Runtime cannot be interrupted. It is no wall against code
that breaks out of ONNX Runtime: answers are unpickled, and only the user of the service keeps it from anything.
"""

import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from multiprocessing.connection import Pipe
from pathlib import Path
from queue import Empty, PriorityQueue
from threading import BoundedSemaphore, Lock, Thread, Timer
from time import sleep
from typing import TYPE_CHECKING, Any

from service.cpus import available_cpus
from service.errors import GaneryError, InvalidBundle, ModelFailure, Stopping
from service.files import MAX_BUNDLE_BYTES
from service.turns import Turns

if TYPE_CHECKING:  # this module is imported first of all, to start the processes early
    from service.compute_process import OpenAgain
    from service.engine import Opened
    from service.manifest import Manifest
    from service.runtime import Provider
    from service.work import Computed, Work

RETRY_SECONDS = 10
COMMAND = (sys.executable, "-P", "-m", "service.compute_process")

logger = logging.getLogger(__name__)


class _Idle:
    """Processes that take a batch: those first that have nothing to do, and of them the latest, whose caches are warm;
    then those that write the files of one, and of them the earliest; then those yet to be started, which are None.
    """

    def __init__(self) -> None:
        self._queue: PriorityQueue[tuple[int, int, _Process | None]] = PriorityQueue()
        self._count = count()

    def put(self, process: "_Process | None", *, busy: bool = False) -> None:
        order = next(self._count)
        self._queue.put((2 if process is None else int(busy), order if busy else -order, process))

    def get(self, *, block: bool = True) -> "_Process | None":
        """
        Raises:
            queue.Empty: if there is none, and it is not to be waited for.
        """
        return self._queue.get(block)[-1]


class ProcessEnded(Exception):
    """A process has ended instead of answering."""


class NeverBegun(ProcessEnded):
    """It had ended before it came to the request."""


class ProcessTooSlow(ProcessEnded):
    """It has been ended, because the time for the answer was over."""


class _Process:
    """One process, and the connection to it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        with theirs:
            self._popen = subprocess.Popen(
                (*COMMAND, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # whatever libraries print belongs nowhere
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
        self.opened: set[str] = set()
        self._answers = Lock()
        self._ended = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ending(self) -> str:
        """How it has ended, once it has been killed: the kernel's doing, a crash, or an import that failed."""
        status = self._popen.wait()
        return f"by signal {-status}" if status < 0 else f"with status {status}"

    def limit_sending(self, seconds: float) -> None:
        """Give it so long to read some of what it is sent; it may hang, and hold what does not fit into its socket."""
        with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
            microseconds = max(1, round(seconds * 10**6))  # 0 is without limit
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", *divmod(microseconds, 10**6)))

    def ask(
        self,
        request: "Callable[[Any, Any], Any]",
        seconds: float | None = None,
        announced: Callable[[], object] = lambda: None,
    ) -> Any:
        """The answer to a request, or the exception that it has raised there.

        Args:
            request: to be sent by one thread at a time, until the answer has come or been announced.
            seconds: in which it must say something; None is without limit.
            announced: is called if the process says that the answer comes soon; another thread may ask then.

        Raises:
            ProcessEnded: if it ends instead.
            NeverBegun: if it has ended before.
            ProcessTooSlow: if it says nothing in time; then it has been ended.
        """
        content = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        try:
            self.connection.send_bytes(content)
        except Exception as error:
            self.kill()
            raise NeverBegun(self.ending) from error
        with self._answers:  # they come in order, and at most one other thread waits for an earlier one
            if self._ended:
                raise NeverBegun(self.ending)
            answer = self._answer(seconds, announced)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, seconds: float | None, announced: Callable[[], object]) -> Any:
        content = b""
        try:
            while in_time := seconds is None or self.connection.poll(seconds):
                if content := self.connection.recv_bytes():
                    break
                announced()
        except Exception as error:  # whatever it is: half an answer would be taken for the beginning of the next
            self.kill()
            raise ProcessEnded(self.ending) from error
        if not in_time:
            self.kill()
            raise ProcessTooSlow(self.ending)
        return pickle.loads(content)

    def kill(self) -> None:
        """End it; threads that wait for its answers notice."""
        self._ended = True
        self._popen.kill()
        self._popen.wait()


_started_early: list[_Process] = []


def start_early() -> None:
    """Start the first process of the next `Processes` now: its imports take as long as those of whoever calls.

    Those of `Settings` too, so the one that says whether there are to be processes is read without them.
    """
    with suppress(ValueError):
        if int(os.environ.get("SERVICE_PROCESSES") or 1) == 0:
            return
    with suppress(OSError):  # whoever needs it says so
        _started_early.append(_Process())


def how_many(count: int | None, provider: "Provider") -> int:
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
        provider: "Provider",
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
        self._idle = _Idle()
        early = [_started_early.pop()] if _started_early else []
        for process in (*[None] * (count - len(early)), *early):
            self._idle.put(process)
        self._running: set[_Process] = set()
        for process in early:
            self._enlist(process)
        # One CPU is left to the server, which has imports enough to do meanwhile, and reads the next bundles.
        self._opening = BoundedSemaphore(max(1, available_cpus() - 1))
        self._starting = Lock()
        self._closed = False

    def open(self, directory: Path, manifest: "Manifest") -> "Opened":
        """See `Engine.open`. A graph that goes beyond its limits is refused as an invalid bundle."""
        from service.compute_process import Open, OpenAgain  # noqa: PLC0415
        from service.engine import read_graph  # noqa: PLC0415

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
        self._opened[manifest.name] = OpenAgain(model, manifest.model_copy(), self._provider, opened.measured)
        return opened

    def compute(self, name: str, works: "Sequence[Work[Any]]", ran: Callable[[], object] = lambda: None) -> "Computed":
        """See `Engine.compute`. If a process ends, and another one too, each work is tried alone."""
        from service.work import Computed, Result, join  # noqa: PLC0415

        for _ in range(2):
            with suppress(ProcessEnded):
                try:
                    return self._compute(name, works, ran)
                except NeverBegun:  # what ended it was not these works
                    return self._compute(name, works, ran)
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

    def _compute(self, name: str, works: "Sequence[Work[Any]]", ran: Callable[[], object]) -> "Computed":
        from service.compute_process import Compute  # noqa: PLC0415

        with self._process() as (process, release):

            def announced() -> None:
                release()
                ran()

            self._open_in(process, name)
            computed: Computed = process.ask(Compute(name, works), self._stall_seconds, announced)
        return computed

    def _open_in(self, process: _Process, name: str) -> None:
        if name not in process.opened:
            process.ask(self._opened[name], self._seconds)
            process.opened.add(name)

    def _prepare(self, process: _Process | None) -> None:
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
    def _process(self) -> Iterator[tuple[_Process, Callable[[], None]]]:
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
    def _using(self, process: _Process) -> Iterator[Callable[[], None]]:
        """Give it back to the idle ones in the end, or sooner by calling what is yielded; or its place if it ended."""
        place: list[_Process | None] = [process]

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

    def _report_end(self, process: _Process) -> None:
        """Say that it has ended, once: two batches may have been sent to it."""
        with suppress(KeyError):
            self._running.remove(process)
            if not self._closed:
                logger.error(
                    "process %d, which computes, has ended %s; another one takes its place", process.pid, process.ending
                )
                self._on_end()

    def _start(self) -> _Process:
        with self._starting:
            if self._closed:
                raise Stopping("this replica is stopping; send the request again, to another one")
            try:
                process = _Process()
            except OSError as error:
                raise ModelFailure(
                    f"no process can be started to compute in: {error.strerror}; SERVICE_PROCESSES=0 needs none"
                ) from error
            self._enlist(process)
            return process

    def _enlist(self, process: _Process) -> None:
        self._running.add(process)
        if self._stall_seconds is not None:
            process.limit_sending(self._stall_seconds)


def _may_use_gpu() -> bool:
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True
