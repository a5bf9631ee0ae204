"""What waits in a bundle's queue: work, who wants its result, and until when."""

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from service.work import Work

T = TypeVar("T")

Priority = Literal["interactive", "bulk"]


@dataclass(frozen=True)
class Done(Generic[T]):
    """A result, and the seconds it spent in each phase."""

    value: T
    queue: float
    compute: float
    """Of the batch that it was part of."""
    encode: float


class Outcome(Protocol):
    """Where the result of work goes, a `Done`; runners call it. A `concurrent.futures.Future` is one."""

    def set_running_or_notify_cancel(self) -> bool:
        """Whether somebody still waits. Asked when a runner takes the work."""

    def cancelled(self) -> bool:
        """Whether it has been given up before that."""

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, error: Any, /) -> None: ...


@dataclass(eq=False, slots=True, weakref_slot=True)
class Job:
    """Work in the queue."""

    work: Work[Any]
    priority: Priority
    deadline: float
    outcome: Outcome
    since: float
    """`time.monotonic()` when it came."""


class JobQueue:
    """Jobs of one priority, in the order in which they came, and what they add up to."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.rows = 0
        self.pixels = 0

    def add(self, job: Job) -> None:
        self.jobs.append(job)
        self.rows += job.work.rows
        self.pixels += job.work.pixels

    def remove(self, job: Job) -> None:
        """At no cost if it is the first.

        Raises:
            ValueError: if it is not there.
        """
        self.jobs.remove(job)
        self.rows -= job.work.rows
        self.pixels -= job.work.pixels
