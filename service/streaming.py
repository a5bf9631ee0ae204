"""Long answers: pieces in order, few of them at a time, and an end that is never mistaken for the whole."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import chain
from typing import TypeVar

from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.batcher import Batcher, Done, Work

T = TypeVar("T")
Pieces = Generator[T, None, None]
Headers = dict[str, str]


def in_order(batcher: Batcher, works: Iterable[Work[T]]) -> Pieces[T]:
    """The results of bulk work, each when its turn comes. Two for each runner are under way.

    Closing the iterator drops what has not been computed.

    Raises:
        Overloaded: at the first result, if too many long answers are being made already.
    """
    batcher.enter_stream()
    under_way: deque[Future[Done[T]]] = deque()
    try:
        for work in works:
            under_way.append(batcher.submit(work, priority="bulk"))
            if len(under_way) > 2 * batcher.runners:
                yield under_way.popleft().result().value
        while under_way:
            yield under_way.popleft().result().value
    finally:
        for future in under_way:
            future.cancel()
        batcher.leave_stream()


async def stream(
    pieces: Pieces[object], chunks: Iterator[bytes], *, media_type: str, headers: Headers
) -> StreamingResponse:
    """An answer of chunks that are made in threads, as fast as the client takes them.

    What fails before the first chunk is raised here, and can still become a problem. What fails later breaks the
    connection: without the last chunk of the transfer encoding, no client takes the answer for complete.

    Args:
        pieces: from `in_order`; closed at the end, also if the client leaves in the middle.
        chunks: what is made of them.
        media_type: of the answer.
        headers: of the answer.
    """
    first = await _thread(pieces, lambda: next(chunks, b""))
    return _Stream(pieces, chain([first], chunks), media_type=media_type, headers=headers)


async def in_thread(pieces: Pieces[object], make: Callable[[], T]) -> T:
    """What `make` returns when it has taken all pieces, in a thread. If this task is cancelled, so are they."""
    made = await _thread(pieces, make)
    pieces.close()
    return made


class _Stream(StreamingResponse):
    def __init__(self, pieces: Pieces[object], chunks: Iterator[bytes], *, media_type: str, headers: Headers) -> None:
        super().__init__(chunks, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # here, for an iterator that is left in the middle ends only when it is collected
            self._pieces.close()


async def _thread(pieces: Pieces[object], call: Callable[[], T]) -> T:
    """The call's result. Without one the pieces are closed: at once, or when the thread ends that nobody waits for."""
    running = asyncio.ensure_future(run_sync(call))

    def close(_: object) -> None:
        if not running.cancelled():
            running.exception()  # has been seen
        pieces.close()

    try:
        return await asyncio.shield(running)
    except BaseException:
        running.add_done_callback(close)
        raise
