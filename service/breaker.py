"""A bundle that only ends processes is left alone for a while: the others need them.

Each process that ends has to be started again, with all bundles, which takes its CPU for a second or more. It is a
circuit breaker as Nygard has it ("Release It!", 2nd edition, section 5.2).
"""

import logging
import math
from threading import Lock
from time import monotonic

from service.errors import NotReady

MOST_ENDS = 8
"""Processes that may end in a row. More than one batch with something bad in it ends: that one has other works too."""
REST_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Breaker:
    """Counts, for one bundle, the processes that ended since one last gave results. Any thread may call.

    Args:
        name: of the bundle.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._ends = 0
        self._until = -math.inf
        self._lock = Lock()

    def check(self) -> None:
        """Pass if work may be tried.

        Raises:
            NotReady: for `REST_SECONDS` after the last of too many ends; what is tried then decides how it goes on.
        """
        left = self._until - monotonic()
        if left > 0:
            raise NotReady(
                f"model {self._name!r} rests for {math.ceil(left)} s: {self._ends} processes that computed for it have "
                "ended, one after the other, perhaps for want of memory; ask again later",
                retry_after=math.ceil(left),
            )

    def ended(self) -> None:
        """A process has ended while it computed for this bundle."""
        with self._lock:
            self._ends += 1
            if self._ends >= MOST_ENDS:
                self._until = monotonic() + REST_SECONDS
                logger.error(
                    "model %s rests for %d s: %d processes in a row have ended in its work",
                    self._name,
                    REST_SECONDS,
                    self._ends,
                )

    def answered(self) -> None:
        """A process has given results."""
        if self._ends:
            with self._lock:
                self._ends, self._until = 0, -math.inf
