"""Requests of all routes for one bundle meet here: a bounded queue in front of whatever computes them, in batches.

A lone request starts at once; what arrives while a batch runs shares the next one. Threads, not asyncio: each runner
waits for the one batch that it has given away, and long answers are written by threads too.
"""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from threading import Condition, RLock, Thread
from time import monotonic
from typing import Any, Literal, TypeVar
from weakref import ref

from service.errors import DeadlineExceeded, Overloaded, Stopping
from service.jobs import Done, Job, JobQueue, Outcome, Priority
from service.pace import Pace
from service.places import Places, Stream
from service.turns import Turns
from service.work import Computed, Work

T = TypeVar("T")

Reason = Literal["queue_full", "deadline", "gone"]

BULK_EVERY = 4
"""One batch in so many begins with bulk work when interactive work would fill them all."""

logger = logging.getLogger(__name__)


class Observer:
    """Is told what happens, and does nothing about it; `telemetry` counts."""

    def batch(self, rows: int, padding: int, compute: float, encode: float) -> None:
        """A batch has run: so many rows have become results, `padding` were computed for nobody; seconds."""

    def waited(self, priority: Priority, seconds: float) -> None:
        """Work has left the queue for a runner."""

    def rejected(self, reason: Reason) -> None:
        """Work was not taken, or dropped before it was computed."""


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait."""

    rows: int = 1024
    pixels: int = 64 * 2**20
    bulk_streams: int = 16


class Batcher:
    """The queue and the threads that empty it. They start with the first work and end with `close`.

    Args:
        compute: runs a batch, and calls its second argument when it would take another: the files of one batch are
            written while the next one is on its way. Several threads call it at once.
        turns: batches at a time that have not got so far; other bundles may share them. None is one, of its own.
        pace: what a runner takes, and how many pixels a batch has therefore; work that alone has more runs alone.
        max_rows: most rows of a batch.
        unit: rows that the graph always runs together; what is missing is padded, and costs as much.
        limits: what may wait.
        observer: is told of batches, waiting and rejections.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Work[Any]], Callable[[], object]], Computed],
        *,
        turns: Turns | None = None,
        pace: Pace | None = None,
        max_rows: int = 32,
        unit: int = 1,
        limits: QueueLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.pace = pace or Pace()
        self.max_rows = max_rows
        self.unit = unit
        self._turns = turns or Turns(1)
        self.runners = self._turns.count
        self.observer = observer or Observer()
        self._run_batch = compute
        self._limits = limits or QueueLimits()
        self._places = Places(self._limits.bulk_streams, self.runners, self.pace)
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._queues: dict[Priority, JobQueue] = {"interactive": JobQueue(), "bulk": JobQueue()}
        self._running = 0
        self._idle = self.runners
        self._choosing = 0
        self._since_bulk = 0
        self._started: dict[int, float] = {}
        self._threads: list[Thread] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return sum(queue.rows for queue in self._queues.values())

    @property
    def wait_seconds(self) -> float:
        """How long interactive work that comes now will wait for a runner, at the speed measured."""
        return self.pace.seconds_for(self._ahead)

    @property
    def _ahead(self) -> float:
        """Pixels that each runner computes before it comes to interactive work that is submitted now."""
        interactive, between = self._queues["interactive"].pixels, self._queues["bulk"].pixels
        if between:  # bulk work waits behind it, but for the batches that begin with bulk
            batch = self.pace.max_pixels
            between = min(between, batch * math.ceil(interactive / (batch * (BULK_EVERY - 1))))
        return (interactive + between + self._running) / self.runners

    @property
    def busy_seconds(self) -> float:
        """Age of the oldest batch that is running; 0 if none is."""
        return max((monotonic() - began for began in list(self._started.values())), default=0.0)

    def rows_of(self, pixels: int) -> int:
        """How many rows of so many pixels each a batch takes: whole units, at least one."""
        return max(1, min(self.max_rows, self.pace.max_pixels // pixels) // self.unit) * self.unit

    def submit(
        self, work: Work[T], *, deadline: float = math.inf, priority: Priority = "interactive"
    ) -> "Future[Done[T]]":
        """`put` for threads, which can wait for a future. Cancelling it withdraws the work.

        Raises:
            Overloaded, Stopping: see `put`.
        """
        future: Future[Done[T]] = Future()
        job = self.put(work, future, deadline=deadline, priority=priority)
        # Weakly: a future that held its job would, with the result, be left to the collector.
        future.add_done_callback(partial(self._leave, ref(job)))
        return future

    def put(
        self, work: Work[Any], outcome: Outcome, *, deadline: float = math.inf, priority: Priority = "interactive"
    ) -> Job:
        """Queue work.

        Args:
            work: of at most as many rows as `rows_of` says for their size; more run alone.
            outcome: is told the result, by another thread.
            deadline: `time.monotonic()` after which nobody wants the result any more.
            priority: bulk work takes what interactive work leaves, and one batch in `BULK_EVERY`.

        Returns:
            What `withdraw` takes.

        Raises:
            Overloaded: if too much is waiting, or so much that the deadline would pass.
            Stopping: after `close`.
        """
        job = Job(work, priority, deadline, outcome, monotonic())
        with self._lock:
            if self._closed:
                raise Stopping("this replica is stopping; send the request again, to another one")
            # Bulk streams were admitted as a whole, keep little in the queue each, and are never cut in the middle.
            if priority == "interactive":
                try:
                    self._admit(job)
                except Overloaded as error:
                    self.observer.rejected(error.reason)
                    raise
            if len(self._threads) < 2 * self.runners:
                self._start()
            self._queues[priority].add(job)
            if self._idle:
                self._changed.notify()
        return job

    def withdraw(self, job: Job) -> None:
        """Give a place in the queue back at once: work that nobody waits for must not keep other work out."""
        with self._lock:
            try:
                self._queues[job.priority].remove(job)
            except ValueError:
                return  # a runner has met it already
        self.observer.rejected("gone" if job.deadline > monotonic() else "deadline")

    def enter_stream(self, stream: Stream) -> None:
        """Take one of the places for long answers, whose work is then always queued.

        Raises:
            Overloaded: if all are taken, or it or one of the others would then come after its deadline.
        """
        with self._lock:
            try:
                self._places.take(stream, self._ahead)
            except Overloaded as error:
                self.observer.rejected(error.reason)
                raise

    def leave_stream(self, stream: Stream) -> None:
        """Give the place back."""
        with self._lock:
            self._places.give_back(stream)

    def close(self) -> None:
        """Take no more work, finish what waits, end the threads."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _admit(self, job: Job) -> None:
        # Of interactive work alone: long answers have their own limit, and must not keep short ones out.
        work, limits, queue = job.work, self._limits, self._queues["interactive"]
        if not queue.rows:
            return  # the first is taken, however large
        ahead = self._ahead
        wait = self.pace.seconds_for(ahead)
        retry_after = max(1, math.ceil(wait))
        if queue.rows + work.rows > limits.rows or queue.pixels + work.pixels > limits.pixels:
            raise Overloaded(
                f"{queue.rows} pictures are waiting, {wait:.1f} seconds of work, and no more may wait",
                retry_after=retry_after,
            )
        # Its own share counts as well: a result that is ready when the deadline strikes comes too late.
        # A full queue is always as long as deadlines allow: by the mean speed alone, one result in four came too late.
        needed = self.pace.seconds_for(ahead + work.pixels, at_worst=True)
        left = job.deadline - job.since
        if needed > left:
            raise Overloaded(
                f"the answer would take about {needed:.1f} seconds, and its deadline is in {max(left, 0):.1f}",
                retry_after=retry_after,
                reason="deadline",
            )

    def _leave(self, entry: "ref[Job]", future: "Future[Any]") -> None:
        if future.cancelled() and (job := entry()) is not None:
            self.withdraw(job)

    def _start(self) -> None:
        for index in range(len(self._threads), 2 * self.runners):
            thread = Thread(target=self._run, args=(index,), name=f"runner-{index}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self, index: int) -> None:
        while batch := self._take():
            began = self._started[index] = monotonic()
            rows, pixels = sum(job.work.rows for job in batch), sum(job.work.pixels for job in batch)
            with ExitStack() as runner:
                runner.callback(self._release_runner, pixels, self._padded(rows) / rows, began)
                try:
                    self._compute(batch, began, runner.close)
                except Exception as error:  # a thread that dies would leave the queue without hands
                    if not isinstance(error, Stopping):
                        logger.exception("a batch was not computed")
                    for job in batch:
                        with suppress(InvalidStateError):  # it has its result
                            job.outcome.set_exception(error)
            del self._started[index]
            batch.clear()  # or its results would stay until the next

    def _take(self) -> list[Job]:
        """Wait for work and a turn; the jobs of the next batch, none when closed and empty."""
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._idle if self.waiting else self._closed)
                if not self.waiting:
                    self._changed.notify_all()
                    return []
                self._idle -= 1
                self._choosing += 1
            waited = self._turns.take()
            with self._lock:
                self.pace.has_waited(waited)
                batch = self._next_batch()
                self._choosing -= 1
                if batch:
                    return batch
                self._idle += 1
            self._turns.give_back()

    def _release_runner(self, pixels: int, padding: float, began: float) -> None:
        """It would take another batch; `padding` times as many pixels have been computed."""
        self._turns.give_back()
        with self._lock:
            self.pace.has_run(pixels * padding, monotonic() - began)
            self._running -= pixels
            self._idle += 1
            if self.waiting:
                self._changed.notify()

    def _next_batch(self) -> list[Job]:
        # Idle runners, and those that wait for a turn, share what waits, rather than watch one of them compute it.
        waiting = self._queues["interactive"].pixels + self._queues["bulk"].pixels
        room = min(self.pace.max_pixels, math.ceil(waiting / (self._idle + self._choosing)))
        bulk_first = bool(self._queues["bulk"].jobs) and self._since_bulk >= BULK_EVERY - 1
        order: list[Priority] = ["bulk", "interactive"] if bulk_first else ["interactive", "bulk"]
        batch: list[Job] = []
        rows = pixels = 0
        for priority in order:
            rows, pixels = self._move(self._queues[priority], batch, rows, pixels, room)
        self._running += pixels
        if batch:
            took_bulk = any(job.priority == "bulk" for job in batch)
            self._since_bulk = 0 if took_bulk or not self._queues["bulk"].jobs else self._since_bulk + 1
        return batch

    def _move(self, queue: JobQueue, batch: list[Job], rows: int, pixels: int, room: int) -> tuple[int, int]:
        """Move jobs of one shape from the queue's front into a batch of so many rows and pixels; how many it has then.

        Nothing is computed in vain.
        """
        now = monotonic()
        while queue.jobs:
            job = queue.jobs[0]
            work = job.work
            then = rows + work.rows
            fits = not batch or (
                work.shape == batch[0].work.shape
                and then <= self.max_rows
                and (pixels + work.pixels <= room or then <= self._padded(rows))  # the latter costs nothing
            )
            wanted = job.deadline > now and not job.outcome.cancelled()
            if wanted and not fits:
                break
            queue.remove(job)
            if not job.outcome.set_running_or_notify_cancel():
                self.observer.rejected("gone")
            elif not wanted:
                self.observer.rejected("deadline")
                job.outcome.set_exception(DeadlineExceeded("the deadline passed while the request waited for its turn"))
            else:
                self.observer.waited(job.priority, now - job.since)
                batch.append(job)
                rows += work.rows
                pixels += work.pixels
        return rows, pixels

    def _padded(self, rows: int) -> int:
        """To whole units."""
        return -(-rows // self.unit) * self.unit

    def _compute(self, batch: Sequence[Job], began: float, ran: Callable[[], object]) -> None:
        computed = self._run_batch([job.work for job in batch], ran)
        ran()  # at the latest
        for job, result in zip(batch, computed.results, strict=True):
            if result.error is None:
                job.outcome.set_result(Done(result.value, began - job.since, computed.compute, result.encode))
            else:
                job.outcome.set_exception(result.error)
        made = sum(job.work.rows for job, result in zip(batch, computed.results, strict=True) if result.error is None)
        if made:
            self.observer.batch(made, computed.padding, computed.compute, computed.encode)
