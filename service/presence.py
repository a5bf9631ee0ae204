"""Waiting for a result while a client waits for the answer."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")

PATIENCE_SECONDS = 0.05
"""Most answers come sooner, and are not worth a second task that watches the connection."""


async def while_connected(request: Request, awaitable: Awaitable[T]) -> T:
    """The awaitable's result. If the client leaves, or this task is cancelled, it is cancelled.

    Raises:
        ClientDisconnect: if the client left; nobody is there to read an answer.
    """
    result = awaitable if isinstance(awaitable, asyncio.Future) else asyncio.ensure_future(awaitable)
    left = False
    watch: asyncio.Task[None] | None = None

    async def wait_until_it_leaves() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        result.cancel()

    def begin_to_watch() -> None:
        nonlocal watch
        watch = asyncio.create_task(wait_until_it_leaves())

    timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, begin_to_watch)
    try:
        return await result
    except asyncio.CancelledError:
        if left:
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()
