"""The results of much work: in order, few of them at a time."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

from service.batcher import Batcher
from service.jobs import Done
from service.work import Work

T = TypeVar("T")


class Pieces(Generic[T]):
    """The results of bulk work, each when its turn comes. Two for each runner are under way.

    Args:
        batcher: that does the work.
        works: in order.
        pixels: of all works together; 0 if nobody knows.
        deadline: `time.monotonic()` by which all must have been computed; infinite if their beginning is sent before.

    One thread iterates; any other may close. That drops what has not been computed and gives the place among the long
    answers back, once nobody keeps it; the thread that iterates is woken if what it waits for is dropped.

    Raises:
        Overloaded: at the first piece, if too many long answers are being made already, or too much for a deadline.
        CancelledError: at the next piece, once closed.
    """

    def __init__(
        self, batcher: Batcher, works: Iterable[Work[T]], *, pixels: int = 0, deadline: float = math.inf
    ) -> None:
        self._batcher = batcher
        self._works = iter(works)
        self._pixels = pixels
        self.deadline = deadline
        self._begun = 0
        self._under_way: deque[Future[Done[T]]] = deque()
        self._entered = False
        self._closed = False
        self._keepers = 0
        self._lock = Lock()

    @property
    def pixels_left(self) -> int:
        """Of the works that have not begun."""
        return max(0, self._pixels - self._begun)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            self._check_open()
            if not self._entered:  # before a work is made: to be refused must cost nothing
                self._batcher.enter_stream(self)
                self._entered = True
        while len(self._under_way) <= 2 * self._batcher.runners and (work := next(self._works, None)) is not None:
            with self._lock:
                self._check_open()
                self._under_way.append(self._batcher.submit(work, priority="bulk"))
                self._begun += work.pixels
        if not self._under_way:
            raise StopIteration  # whoever has the place keeps it until what was made of the pieces has been sent
        with self._lock:
            self._check_open()
            future = self._under_way[0]
        done = future.result()
        with self._lock:
            self._check_open()
            self._under_way.popleft()
        return done.value

    def close(self) -> None:
        """End the work; closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for future in self._under_way:
                future.cancel()
            self._under_way.clear()  # what has been made is held by nobody else
            self._leave()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the place while something is made of them, whoever closes them meanwhile.

        A thread cannot be stopped: with places given back, one client with short deadlines could have any number of
        files written at a time, for nobody.
        """
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                self._leave()

    def _leave(self) -> None:
        if self._entered and self._closed and not self._keepers:
            self._entered = False
            self._batcher.leave_stream(self)

    def _check_open(self) -> None:
        if self._closed:
            raise CancelledError("nobody waits for these pieces any more")
