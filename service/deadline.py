"""An answer that would come too late is not waited for."""

import asyncio
import math
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded, InvalidValue
from service.headers import header_of

TICK_SECONDS = 0.02
"""How much later than it is due something may be given up."""
MOST_LAG = 0.5
"""Share of the time for an answer that is set aside for the event loop's lag, however much it was."""
LAG_KEPT = 0.9
"""Share of the event loop's lag that is still reckoned with at the next tick, if there has been none since."""


class Clock:
    """Until when a request waits for what; handlers find it in the scope's state, as `clock`.

    Args:
        state: of the request; its `begun` says whether the answer has.
        seconds: in which it must.
        send_seconds: in which a client must take each part of a long answer.
        lag: seconds that a result may wait, once it is there, before it becomes an answer.
    """

    __slots__ = (
        "_seconds", "_send_seconds", "_state", "_task", "_watching", "deadline", "due", "late", "result_due", "struck",
    )  # fmt: skip

    def __init__(
        self, state: Mapping[str, Any], seconds: float, send_seconds: float = math.inf, lag: float = 0.0
    ) -> None:
        self._state = state
        self._task = asyncio.current_task()
        self._watching = False
        self._seconds = seconds
        self._send_seconds = send_seconds
        self.deadline = self.due = monotonic() + seconds
        """As `time.monotonic()` has it."""
        self.result_due = self.deadline - min(lag, MOST_LAG * seconds)
        """By when a result must be there for the answer to begin in time."""
        self.late: Callable[[], Exception] = self._too_late
        """What is raised when it is over."""
        self.struck = False

    def wait_for(self, seconds: float, late: Callable[[], Exception]) -> None:
        """Allow so many seconds for what comes next, and not more than are left; then raise what `late` gives."""
        due = monotonic() + seconds
        if due < self.deadline:
            self.due, self.late = due, late

    def go_on(self) -> None:
        """What was waited for has come; wait for the answer again."""
        self.due, self.late = self.deadline, self._too_late

    def watch(self, send: Send) -> Send:
        """For the parts of a long answer, each in its time. All together may take as long as they need."""
        self._watching = True

        async def send_in_time(message: Message) -> None:
            self.deadline = math.inf
            self.wait_for(self._send_seconds, self._stopped_reading)
            await send(message)
            self.due = math.inf

        return send_in_time

    def strike(self) -> None:
        """It is due: give up, unless it was the answer that was waited for, and has begun. `late` gives the reason."""
        self.due = math.inf
        if self._task is not None and (self._watching or not self._state.get("begun")):
            self.struck = self._task.cancel()

    def _too_late(self) -> Exception:
        return DeadlineExceeded(f"no answer within {self._seconds:g} seconds; ask for less, or again later")

    def _stopped_reading(self) -> Exception:
        return ClientDisconnect(f"the client took nothing for {self._send_seconds:g} seconds")


class DeadlineMiddleware:
    """Gives every answer a time in which it must begin: the service's own, or less if `X-Deadline-Ms` says so.

    One timer looks after all requests. What they wait for changes several times in each, and almost never comes too
    late: a timer of its own for each would be set and taken back again.

    Raises:
        DeadlineExceeded: if the answer has not begun by then. What is being computed goes on, for nobody.
        ClientDisconnect: if the client has stopped reading a long answer, which is as good as gone.
        InvalidValue: if the header is no whole number of milliseconds above 0.
    """

    def __init__(self, app: ASGIApp, seconds: float, send_seconds: float) -> None:
        self.app = app
        self.seconds = seconds
        self.send_seconds = send_seconds
        self._clocks: set[Clock] = set()
        self._tick_due = 0.0
        self._lag = 0.0
        self._ticking_in: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope["state"]
        seconds = min(self.seconds, _asked(scope))
        loop = asyncio.get_running_loop()
        if self._ticking_in is not loop:
            self._ticking_in, self._lag = loop, 0.0  # it was idle, and has none, whatever it had before
            self._wait_for_tick(loop)
        clock = state["clock"] = Clock(state, seconds, self.send_seconds, self._lag)
        self._clocks.add(clock)
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if not clock.struck or (task := asyncio.current_task()) is None or task.uncancel():
                raise
            raise clock.late() from None
        finally:
            self._clocks.discard(clock)

    def _tick(self) -> None:
        now = monotonic()
        # Thousands of requests that come at once are read, and refused, before the next result is told.
        self._lag = max(now - self._tick_due, LAG_KEPT * self._lag)
        for clock in self._clocks:
            if clock.due <= now:
                clock.strike()
        assert self._ticking_in is not None
        if self._clocks:
            self._wait_for_tick(self._ticking_in)
        else:
            self._ticking_in = None

    def _wait_for_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick_due = monotonic() + TICK_SECONDS
        loop.call_later(TICK_SECONDS, self._tick)


def _asked(scope: Scope) -> float:
    came = header_of(scope, b"x-deadline-ms")
    if came is None:
        return math.inf
    came = came.strip(" \t")
    if not (came.isascii() and came.isdigit() and int(came[:20]) > 0):
        raise InvalidValue(f"X-Deadline-Ms is {came[:50]!r}; send whole milliseconds, 1 or more")
    return int(came[:20]) / 1000
