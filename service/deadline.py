"""An answer that would come too late is not waited for."""

import math

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded


class DeadlineMiddleware:
    """Gives every answer a time in which it must begin; how long it then takes is the client's pace, not ours.

    Raises:
        DeadlineExceeded: if it has not begun by then. Work in threads goes on, and its result is dropped.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with anyio.move_on_after(self.seconds) as budget:

            async def send_in_time(message: Message) -> None:
                budget.deadline = math.inf
                await send(message)

            await self.app(scope, receive, send_in_time)
        if budget.cancelled_caught:
            raise DeadlineExceeded(f"no answer within {self.seconds:g} seconds; ask for less, or again later")
