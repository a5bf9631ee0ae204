"""Threads that read what clients send: few, so that what pictures take in memory while they are decoded is bounded.

A thread cannot be stopped. Where a request ends before its picture is read, the thread is left behind, and keeps its
place until it is done; anyio's would give theirs away at once, and one client with short deadlines could have any
number of pictures decoded at a time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.cpus import available_cpus

T = TypeVar("T")

LEAST_THREADS = 2
"""So that a large picture does not keep all others waiting."""


class Decoding:
    """As many threads as there are CPUs, and requests that wait for one of them."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads or max(LEAST_THREADS, available_cpus()), "decoding")

    async def run(self, read: Callable[[], T]) -> T:
        """What `read` gives. If this task is cancelled before it has begun, it never does."""
        return await asyncio.wrap_future(self._threads.submit(read))

    def close(self) -> None:
        """Take no more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
