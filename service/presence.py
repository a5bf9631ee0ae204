"""Waiting for a result while a client waits for the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")

PATIENCE_SECONDS = 0.05
"""Most answers come sooner, and are not worth a second task that watches the connection."""

WhenGone = Callable[[Callable[[], object] | None], None]
"""Is told what to call when the client has gone; None for nothing. A server that can say so by itself leaves one in the
scope's state, as `when_gone`, and spares us the watching."""


async def while_connected(request: Request, awaitable: Awaitable[T]) -> T:
    """The awaitable's result. If the client leaves, or this task is cancelled, it is cancelled.

    Raises:
        ClientDisconnect: if the client left; nobody is there to read an answer.
    """
    result = awaitable if isinstance(awaitable, asyncio.Future) else asyncio.ensure_future(awaitable)
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        result.cancel()

    when_gone: WhenGone = request.scope["state"].get("when_gone") or _Watch(request)
    when_gone(leave)
    try:
        return await result
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise
    finally:
        when_gone(None)


class _Watch:
    """A `WhenGone` for any server: a task that listens for the end of the connection."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, leave: Callable[[], object] | None) -> None:
        if leave is not None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin, leave)
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self, leave: Callable[[], object]) -> None:
        self._task = asyncio.create_task(self._wait_until_it_leaves(leave))

    async def _wait_until_it_leaves(self, leave: Callable[[], object]) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        leave()
