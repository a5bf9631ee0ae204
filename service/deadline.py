"""An answer that would come too late is not waited for."""

import asyncio
import math
from collections.abc import Callable
from time import monotonic

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded, InvalidValue

SENT_AT_ONCE = 16 * 1024
"""Bytes of a whole body that fit into the server's buffer: sending them waits for no client, and needs no timer."""


class Clock:
    """The one timer of a request; handlers find it in the scope's state, as `clock`.

    What it waits for changes more often than it comes too late. So the loop's timer stays where it was set, and is set
    again when it strikes too early.

    Args:
        seconds: in which the answer must begin.
    """

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._now, self._call_at = loop.time, loop.call_at
        self._seconds = seconds
        self._end = self._due = self._set_to = self._now() + seconds
        self._timer = self._call_at(self._due, self._strike)
        self.timeout = asyncio.timeout(None)
        self.late: Callable[[], Exception] = self._too_late

    def wait_for(self, seconds: float, late: Callable[[], Exception]) -> None:
        """Allow so many seconds for what comes next, and not more than are left; then raise what `late` gives."""
        due = self._now() + seconds
        if due < self._end:
            self._due, self.late = due, late
            if due < self._set_to:
                self._set(due)

    def go_on(self) -> None:
        """What was waited for has come; wait for the answer again."""
        self._due, self.late = self._end, self._too_late

    def begun(self) -> None:
        """The answer has begun, and may take its time."""
        self._due = self._end = math.inf

    def stop(self) -> None:
        """The request is over."""
        self._timer.cancel()

    def _strike(self) -> None:
        self._set_to = math.inf
        if self._due <= self._now():
            self.timeout.reschedule(self._due)
        elif self._due < math.inf:
            self._set(self._due)

    def _set(self, when: float) -> None:
        self._timer.cancel()
        self._set_to = when
        self._timer = self._call_at(when, self._strike)

    def _too_late(self) -> Exception:
        return DeadlineExceeded(f"no answer within {self._seconds:g} seconds; ask for less, or again later")


class DeadlineMiddleware:
    """Gives every answer a time in which it must begin: the service's own, or less if `X-Deadline-Ms` says so.

    Handlers find it in `request.state.deadline`, as `time.monotonic()` has it. Once an answer has begun, each part of
    it must be taken within `send_seconds`; a client that stops reading is let go.

    Raises:
        DeadlineExceeded: if the answer has not begun by then. What is being computed goes on, for nobody.
        ClientDisconnect: if the client has stopped reading, which is as good as gone.
        InvalidValue: if the header is no whole number of milliseconds above 0.
    """

    def __init__(self, app: ASGIApp, seconds: float, send_seconds: float) -> None:
        self.app = app
        self.seconds = seconds
        self.send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds = min(self.seconds, _asked(scope))
        clock = Clock(seconds)
        state = scope.setdefault("state", {})
        state["deadline"], state["clock"] = monotonic() + seconds, clock
        begun = False

        async def send_in_time(message: Message) -> None:
            nonlocal begun
            if not begun:
                begun = True
                clock.begun()
            if len(message.get("body", b"")) < SENT_AT_ONCE and not message.get("more_body", False):
                await send(message)
                return
            clock.wait_for(self.send_seconds, self._stopped_reading)
            await send(message)
            clock.begun()

        try:
            async with clock.timeout:
                await self.app(scope, receive, send_in_time)
        except TimeoutError:
            if not clock.timeout.expired():
                raise
            raise clock.late() from None
        finally:
            clock.stop()

    def _stopped_reading(self) -> Exception:
        return ClientDisconnect(f"the client took nothing for {self.send_seconds:g} seconds")


def _asked(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == b"x-deadline-ms":
            if not value.isdigit() or not int(value[:20]) > 0:
                raise InvalidValue(
                    f"X-Deadline-Ms is {value[:50].decode('latin-1')!r}; send whole milliseconds, 1 or more"
                )
            return int(value[:20]) / 1000
    return math.inf
