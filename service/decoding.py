"""Threads that read what clients send: few, so that what pictures take in memory while they are decoded is bounded.

A thread cannot be stopped. Where a request ends before its picture is read, the thread is left behind, and keeps its
place until it is done; anyio's would give theirs away at once, and one client with short deadlines could have any
number of pictures decoded at a time.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import monotonic
from typing import TypeVar

from service.cpus import available_cpus
from service.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")

LEAST_THREADS = 2
"""So that a large picture does not keep all others waiting."""
WEIGHT_OF_LATEST = 0.2
"""Weight of the latest upload in the mean time that one takes."""


class Decoding:
    """As many threads as there are CPUs, and requests that wait for one of them."""

    def __init__(self, threads: int | None = None) -> None:
        self._count = threads or max(LEAST_THREADS, available_cpus())
        self._threads = ThreadPoolExecutor(self._count, "decoding")
        self._lock = Lock()
        self._under_way = 0
        self._seconds = 0.0
        """That one took lately, on average."""

    async def run(self, read: Callable[[], T], *, deadline: float = math.inf) -> T:
        """What `read` gives. If this task is cancelled before it has begun, it never does.

        Raises:
            Overloaded: if those before it will take longer than until the deadline, by `time.monotonic()`.
            DeadlineExceeded: if it has passed.
        """
        left = deadline - monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed while the upload came; allow more time: X-Deadline-Ms")
        wait = max(0, self._under_way + 1 - self._count) * self._seconds / self._count
        if wait > left:
            raise Overloaded(
                f"{self._under_way} uploads are being read, {wait:.1f} seconds of work; send it again later",
                retry_after=max(1, math.ceil(wait)),
            )
        with self._lock:
            self._under_way += 1
        future = self._threads.submit(self._timed, read)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _timed(self, read: Callable[[], T]) -> T:
        began = monotonic()
        try:
            return read()
        finally:
            with self._lock:
                self._seconds += WEIGHT_OF_LATEST * (monotonic() - began - self._seconds)

    def _leave(self, future: "Future[T]") -> None:
        with self._lock:
            self._under_way -= 1

    def close(self) -> None:
        """Take no more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
