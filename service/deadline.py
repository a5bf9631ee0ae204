"""Neither an answer that would come too late is waited for, nor a body that comes too slowly."""

import math

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import DeadlineExceeded, RequestTimeout


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


class BodyDeadlineMiddleware:
    """Gives every body a time in which all of it must have come, counted from when it is first asked for.

    Raises:
        RequestTimeout: from `receive`, if it has not. Once the answer has begun, nobody needs the rest.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        deadline: float | None = None

        async def receive_in_time() -> Message:
            nonlocal deadline
            if deadline is None:
                deadline = anyio.current_time() + self.seconds
            with anyio.CancelScope(deadline=deadline) as budget:
                message = await receive()
                if not message.get("more_body", False):
                    deadline = math.inf
                return message
            assert budget.cancelled_caught
            raise RequestTimeout(f"the body has not come within {self.seconds:g} seconds; send it at once")

        async def send_and_stop_waiting(message: Message) -> None:
            nonlocal deadline
            deadline = math.inf
            await send(message)

        await self.app(scope, receive_in_time, send_and_stop_waiting)
