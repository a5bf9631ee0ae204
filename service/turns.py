"""Who computes next, where several bundles share what computes."""

from collections import deque
from threading import Event, Lock
from time import monotonic


class Turns:
    """So many at a time; who waits is served in the order in which they came.

    Python's semaphores and queues have no order: the thread that gives a place back takes it again before another one
    has woken up, and one bundle's long answers would keep the requests of all others waiting to their end.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._waiting: deque[Event] = deque()
        self._lock = Lock()

    def take(self) -> float:
        """Wait for a place; the seconds that it took."""
        with self._lock:
            if self._free:
                self._free -= 1
                return 0.0
            mine, since = Event(), monotonic()
            self._waiting.append(mine)
        mine.wait()
        return monotonic() - since

    def give_back(self) -> None:
        """To whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
