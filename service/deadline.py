"""An answer that would come too late is not waited for."""

import math
from time import monotonic

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded, InvalidValue


class DeadlineMiddleware:
    """Gives every answer a time in which it must begin: the service's own, or less if `X-Deadline-Ms` says so.

    Handlers find it in `request.state.deadline`, as `time.monotonic()` has it. Once an answer has begun, each part of
    it must be taken within the service's time; a client that stops reading is let go.

    Raises:
        DeadlineExceeded: if the answer has not begun by then. What is being computed goes on, for nobody.
        ClientDisconnect: if the client took nothing for the service's time.
        InvalidValue: if the header is no whole number of milliseconds above 0.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seconds = min(self.seconds, _asked(Headers(scope=scope).get("x-deadline-ms")))
        scope.setdefault("state", {})["deadline"] = monotonic() + seconds
        begun = False
        with anyio.move_on_after(seconds) as budget:

            async def send_in_time(message: Message) -> None:
                nonlocal begun
                begun = True
                budget.deadline = anyio.current_time() + self.seconds
                await send(message)
                budget.deadline = math.inf

            await self.app(scope, receive, send_in_time)
        if budget.cancelled_caught and not begun:
            raise DeadlineExceeded(f"no answer within {seconds:g} seconds; ask for less, or again later")
        if budget.cancelled_caught:
            raise ClientDisconnect  # it took nothing for so long


def _asked(header: str | None) -> float:
    if header is None:
        return math.inf
    if not header.isdecimal() or not int(header[:20]) > 0:
        raise InvalidValue(f"X-Deadline-Ms is {header[:50]!r}; send whole milliseconds, 1 or more")
    return int(header[:20]) / 1000
