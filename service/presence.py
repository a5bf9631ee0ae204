"""Waiting for a result while a client waits for the answer."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")

PATIENCE_SECONDS = 0.05
"""Most answers come sooner, and are not worth a second task that watches the connection."""


async def while_connected(request: Request, awaitable: Awaitable[T]) -> T:
    """The awaitable's result. If the client leaves, or this task is cancelled, it is cancelled.

    Raises:
        ClientDisconnect: if the client left; nobody is there to read an answer.
    """
    result = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([result], timeout=PATIENCE_SECONDS)
        if not result.done():
            leaving = asyncio.ensure_future(_leaves(request))
            futures: list[asyncio.Future[Any]] = [result, leaving]
            try:
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        result.cancel()


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
