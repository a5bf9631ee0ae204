"""An answer that would come too late is not waited for."""

import asyncio
import math
from time import monotonic

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded, InvalidValue

SENT_AT_ONCE = 16 * 1024
"""Bytes of a whole body that fit into the server's buffer: sending them waits for no client, and needs no timer."""


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
        scope.setdefault("state", {})["deadline"] = monotonic() + seconds
        clock = asyncio.get_running_loop().time
        begun = False
        try:
            async with asyncio.timeout(seconds) as budget:

                async def send_in_time(message: Message) -> None:
                    nonlocal begun
                    if not begun:
                        begun = True
                        budget.reschedule(None)
                    if len(message.get("body", b"")) < SENT_AT_ONCE and not message.get("more_body", False):
                        await send(message)
                        return
                    budget.reschedule(clock() + self.send_seconds)
                    await send(message)
                    budget.reschedule(None)

                await self.app(scope, receive, send_in_time)
        except TimeoutError:
            if not budget.expired():
                raise
            if begun:
                raise ClientDisconnect(f"the client took nothing for {self.send_seconds:g} seconds") from None
            raise DeadlineExceeded(f"no answer within {seconds:g} seconds; ask for less, or again later") from None


def _asked(scope: Scope) -> float:
    header = next((value for name, value in scope["headers"] if name == b"x-deadline-ms"), None)
    if header is None:
        return math.inf
    if not header.isdigit() or not int(header[:20]) > 0:
        raise InvalidValue(f"X-Deadline-Ms is {header[:50].decode('latin-1')!r}; send whole milliseconds, 1 or more")
    return int(header[:20]) / 1000
