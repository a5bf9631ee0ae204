"""Results that threads make, brought to the event loop: all that have come since it last looked, in one go."""

import asyncio
from collections import defaultdict
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Arrivals:
    """`asyncio.wrap_future` wakes the loop for each future; a batch makes many at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._come: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Future[Any]]]] = defaultdict(list)

    def expect(self, future: "Future[T]") -> "asyncio.Future[T]":
        """A future of the running loop with the same result; cancelling it cancels the other."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda waiter: waiter.cancelled() and future.cancel())
        future.add_done_callback(partial(self._arrive, waiter))
        return waiter

    def _arrive(self, waiter: "asyncio.Future[T]", future: "Future[T]") -> None:
        """In whichever thread."""
        loop = waiter.get_loop()
        with self._lock:
            come = self._come[loop]
            come.append((waiter, future))
            first = len(come) == 1
        if first:
            loop.call_soon_threadsafe(self._deliver, loop)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            come = self._come.pop(loop)
        for waiter, future in come:
            if waiter.done() or future.cancelled():
                continue
            if (error := future.exception()) is None:
                waiter.set_result(future.result())
            else:
                waiter.set_exception(error)
