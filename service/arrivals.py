"""Results that threads make, brought to the event loop: all that have come since it last looked, in one go."""

import asyncio
from collections import defaultdict
from threading import Lock
from typing import Any

Waiter = asyncio.Future[Any]


class Arrival:
    """One result: for threads a `jobs.Outcome`, and `waiter` for whoever waits in the loop. Cancel that to give up.

    It is much less than a `concurrent.futures.Future`, on whose condition a thread could wait too.
    """

    __slots__ = ("_bring", "waiter")

    def __init__(self, arrivals: "Arrivals", waiter: Waiter) -> None:
        self._bring = arrivals.bring
        self.waiter = waiter

    def set_running_or_notify_cancel(self) -> bool:
        return not self.waiter.done()

    def cancelled(self) -> bool:
        return self.waiter.cancelled()

    def set_result(self, result: Any, /) -> None:
        self._bring(self.waiter, result, None)

    def set_exception(self, error: BaseException, /) -> None:
        self._bring(self.waiter, None, error)


class Arrivals:
    """Wakes the loop once for all results of a batch; `asyncio.wrap_future` would for each."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._come: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any, BaseException | None]]] = defaultdict(list)

    def expect(self) -> Arrival:
        """A result that will come to the running loop."""
        return Arrival(self, asyncio.get_running_loop().create_future())

    def bring(self, waiter: Waiter, result: Any, error: BaseException | None) -> None:
        """In whichever thread."""
        loop = waiter.get_loop()
        with self._lock:
            come = self._come[loop]
            come.append((waiter, result, error))
            first = len(come) == 1
        if first:
            loop.call_soon_threadsafe(self._deliver, loop)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            come = self._come.pop(loop)
        for waiter, result, error in come:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(result)
            else:
                waiter.set_exception(error)
