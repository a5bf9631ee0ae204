"""Places for long answers: how many are made at a time, and which of them would still come in time."""

import math
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from service.errors import Overloaded
from service.pace import Pace

LONGEST_RETRY = 60
"""Seconds after which whoever found no place may look again: others may leave before their end."""
COMPUTING = 0.75
"""Share of the time until a long answer's deadline in which it must be computed; in the rest it becomes a file."""


class Stream(Protocol):
    """A long answer that is being made."""

    @property
    def pixels_left(self) -> int:
        """What has yet to be computed of it; 0 if nobody knows."""

    @property
    def deadline(self) -> float:
        """`time.monotonic()` by which all of it must have been computed; infinite if its beginning is sent before."""


class Places:
    """So many, of one bundle. Whoever calls holds the batcher's lock.

    Args:
        count: how many.
        runners: that all of them share, evenly.
        pace: of each runner.
    """

    def __init__(self, count: int, runners: int, pace: Pace) -> None:
        self._count = count
        self._runners = runners
        self._pace = pace
        self._taken: list[Stream] = []

    def take(self, stream: Stream, ahead: float) -> None:
        """Take one for a long answer.

        Args:
            stream: the answer.
            ahead: pixels that each runner computes before it comes to those of long answers.

        Raises:
            Overloaded: if all are taken, or it or one of the others would then come after its deadline.
        """
        if self._taken and self._late([*self._taken, stream]) - self._late(self._taken):
            raise Overloaded(
                f"{len(self._taken)} long answers are being made, and with one more they would come too late",
                retry_after=self._retry_seconds(ahead),
                reason="deadline",
            )
        if len(self._taken) >= self._count:
            raise Overloaded(
                f"{len(self._taken)} long answers are being made, and no more are begun",
                retry_after=self._retry_seconds(ahead),
            )
        self._taken.append(stream)

    def give_back(self, stream: Stream) -> None:
        """Its place, to whoever asks next."""
        self._taken.remove(stream)

    def _retry_seconds(self, ahead: float) -> int:
        """Until the shortest of them ends, by when each has had as much of the runners."""
        pixels = min(stream.pixels_left for stream in self._taken) * len(self._taken) / self._runners
        return min(LONGEST_RETRY, max(1, math.ceil(self._pace.seconds_for(ahead + pixels))))

    def _late(self, streams: Sequence[Stream]) -> set[int]:
        """Which of them come after their deadlines, by `id`."""
        now, late = monotonic(), set()
        for stream in streams:
            shared = sum(min(stream.pixels_left, other.pixels_left) for other in streams)
            needed = self._pace.seconds_for(shared / self._runners, at_worst=True)
            if needed > COMPUTING * (stream.deadline - now):
                late.add(id(stream))
        return late
